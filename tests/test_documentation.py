"""What the documentation shows is what happens, and the site can be built from it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from documentation_pages import ROOT, SERVER, WIDTH, PageRun, blocks_of, countdown_server, differences

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if "```" in page.read_text(encoding="utf-8")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose extensions may name Python objects."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def site() -> Any:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", WIDTH)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    text = page.read_text(encoding="utf-8")
    with countdown_server() if SERVER in text else contextlib.nullcontext(SERVER) as server:
        for block, printed in PageRun(name_of(page), server).run(blocks_of(text)):
            wrong = differences(block.code, printed, block.comment)
            assert not wrong, f"{name_of(page)}, line {block.line}:\n" + "\n".join(wrong)


def test_the_readme_shows_an_example_and_what_it_prints() -> None:
    blocks = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    after = next(block for first, block in pairwise(blocks) if first.language == "python")
    assert after.follows
    assert "✓" in after.code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
        if "://" in link:
            continue
        target = page if not link else page.parent / link
        assert target.exists(), f"{name_of(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}#{anchor}, which is not there"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_every_page_is_in_the_navigation_and_the_other_way_round(site: Any) -> None:
    assert sorted(leaves(site["nav"])) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES[1:])


def leaves(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    for each in part if isinstance(part, list) else part.values() if isinstance(part, dict) else ():
        yield from leaves(each)


def test_references_name_modules_that_exist() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    named = [name for text in pages for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)]
    rooms = [name for text in pages for name in re.findall(r"<!-- modules of ([\w.]+) -->", text)]
    assert len(set(named)) == len(named)
    for name in {*named, *rooms}:
        assert importlib.util.find_spec(name) is not None, f"the reference names {name}, which does not exist"


@pytest.mark.parametrize("change", ["1.5", "2.0", "x"])
def test_a_wrong_output_is_noticed(change: str) -> None:
    assert differences("accuracy 1.0\nend\n", "accuracy 1.0  \nend", "") == []
    assert differences("accuracy 1.0\n", f"accuracy {change}\n", "numbers within 0.2")
    assert not differences("accuracy 1.0\n", "accuracy 1.1\n", "numbers within 0.2")
    assert differences("accuracy 1.0\n", "accuracy 1.1\n", "")
    assert differences("accuracy 1.0\n", "accuracy 1.0\nmore\n", "numbers within 0.2")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml")),
    reason="the packages of the extra 'docs' are not installed ('make docs' installs them)",
)
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not fetched, f"{page.name} fetches {fetched}"
