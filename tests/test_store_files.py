"""Files and folders are written whole or not at all, and what killed writers left behind is cleared away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gradatim.store import files
from gradatim.store.files import atomic_folder, atomic_path, remove_temporaries, write_text


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def write(
    folder: Path, content: str, keep: Callable[[Path], bool] = lambda path: False, error: Exception | None = None
) -> None:
    with atomic_folder(folder, keep) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text(content)
        if error is not None:
            raise error


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        raise ValueError("half")


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_old_or_new(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    folder = tmp_path / "some" / "model"
    write(folder, "old")
    (folder / "notes").write_text("mine")
    with pytest.raises(ValueError, match="never"):
        write(folder, "half", error=ValueError("never"))
    assert (folder / "inner" / "file").read_text() == "old"
    write(folder, "kept", keep=lambda path: path.name == "notes")
    assert (folder / "notes").read_text() == "mine"
    write(folder, "new")
    assert (folder / "inner" / "file").read_text() == "new"
    assert [path.name for path in folder.iterdir()] == ["inner"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_that_a_crash_left_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model", "old")
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", lambda path, **options: None)  # as if the process were no more
        rename, calls = Path.rename, []

        def stop(path: Path, target: Path) -> Path:
            calls.append(path)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return rename(path, target)

        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "model", "new")
    assert not (tmp_path / "model").exists()
    remove_temporaries(tmp_path)
    assert (tmp_path / "model" / "inner" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_temporary_files_of_dead_writers_are_removed_by_the_next(tmp_path: Path, dead: int) -> None:
    for name in (f".models.{dead}.json", f".models.{os.getppid()}.json", ".models.old.json", f".others.{dead}.json"):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "models.json", "{}")
    left = {".models.old.json", f".models.{os.getppid()}.json", f".others.{dead}.json", "models.json"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_names_with_patterns_in_them_are_names(tmp_path: Path, dead: int) -> None:
    (tmp_path / f".a*[x].{dead}.json").write_text("half")
    (tmp_path / f".abx.{dead}.json").write_text("another's")
    write_text(tmp_path / "a*[x].json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a*[x].json", f".abx.{dead}.json"}


def test_a_folder_is_cleared_of_all_that_writers_left_behind(tmp_path: Path) -> None:
    for name in ("deep/.models.123.json", "plots/.tree.7.png", ".report.99.md", ".recipe.8"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    for name in (".scorer.partial/x", "deep/.checkpoint-3.removed/x"):
        (tmp_path / name).mkdir(parents=True)
    for name in (".lock", "deep/models.json", ".hidden.txt"):
        (tmp_path / name).write_text("whole")
    remove_temporaries(tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {".lock", "deep/models.json", ".hidden.txt"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"deep", "plots"}


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "old")
    with pytest.raises(ValueError, match="half"):
        write_half(tmp_path / "file.txt")
    assert (tmp_path / "file.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
