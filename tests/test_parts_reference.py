"""What is said of every part: in the terminal, on the site, and where one of its names is misspelt."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.part import Page, kinds, make, pages

PARTS = [page for kind in kinds() for page in pages(kind)]


def misspelt(name: str) -> str:
    """A name with a letter too few, or of a short one too many."""
    return name[:-1] if len(name) > 4 else name + name[-1]


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["parts", *arguments], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def refused(kind: str, value: Any) -> str:
    with pytest.raises(GradatimError) as caught:
        make(kind, value)
    return str(caught.value)


@pytest.mark.parametrize("kind", kinds())
def test_a_misspelt_kind_names_the_nearest(kind: str) -> None:
    assert f"did you mean '{kind}'?" in refused(misspelt(kind), "anything")
    result = CliRunner().invoke(app, ["parts", misspelt(kind)])
    assert (result.exit_code, f"did you mean '{kind}'?" in result.stderr) == (1, True)


@pytest.mark.parametrize("page", PARTS, ids=lambda page: f"{page.kind}-{page.name}")
def test_a_misspelt_name_or_option_names_the_nearest(page: Page) -> None:
    assert f"did you mean '{page.name}'?" in refused(page.kind, misspelt(page.name))
    for option in page.options:
        said = refused(page.kind, {"name": page.name, misspelt(option.name): 1})
        assert f"has no option '{misspelt(option.name)}'; did you mean '{option.name}'?" in said


@pytest.mark.parametrize("page", PARTS, ids=lambda page: f"{page.kind}-{page.name}")
def test_every_part_and_option_is_said_in_a_line(page: Page) -> None:
    assert page.summary
    assert "``" not in page.summary
    assert all(option.meaning for option in page.options), [each.name for each in page.options if not each.meaning]


def test_the_terminal_lists_kinds_and_the_parts_of_one() -> None:
    assert all(f"{kind}: {summary}" in shown() for kind, summary in kinds().items())
    assert all(summary for summary in kinds().values())
    for kind in kinds():
        text = shown(kind)
        for page in pages(kind):
            assert f"{page.name}: {page.summary}" in text
            assert page.paper is None or page.paper in text
            assert all(f"{option.name} (" in text for option in page.options)


def test_the_site_has_a_table_of_every_part() -> None:
    file = Path(__file__).parents[1] / "scripts" / "documentation" / "parts.py"
    spec: Any = importlib.util.spec_from_file_location("parts_hook", file)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = hook.on_page_markdown("before\n<!-- parts -->\nafter", page=None, config=None, files=None)
    assert text.startswith("before\n## `")
    for page in PARTS:
        _, _, section = text.partition(f"## `{page.kind}`\n")[2].partition(f"### `{page.name}`\n")
        section = section.partition("\n### ")[0]
        assert page.paper is None or f"](https://arxiv.org/abs/{page.paper.removeprefix('arXiv:')})" in section
        assert all(f"| `{option.name}` |" in section for option in page.options)


def test_a_recipe_can_name_every_option() -> None:
    """Some words are no words in YAML: ``yes: A`` says what is true."""
    for page in PARTS:
        for option in page.options:
            assert yaml.safe_load(f"{option.name}: 1") == {option.name: 1}, f"{page.kind} {page.name}: {option.name}"
