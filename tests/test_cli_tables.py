"""Tables in the terminal: nothing is cut, and no word or number is broken, however wide it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gradatim.cli.tables import broken, fitting_widths, print_sections
from gradatim.evaluation.page import Picture, Section, Table, Verbatim, held

SEARCH = Table(
    ["method", "settings", "tokens", "accuracy", "best of n needs", "FLOPs"],
    [
        ["sampling", held("n 1"), "35", "28.4 (26.6 to 30.3)", "", "1.0e+08"],
        ["weighted majority", held("n 64"), "12,551", "84.7 (80.3 to 88.7)", "", "1.0e+08"],
        [
            "beam search",
            ", ".join(map(held, ("width [6, 3]", "branch [2, 9, 1]"))),
            "624",
            "80.7 (76.0 to 100.0)",
            "> 1,407",
            "1.0e+08",
        ],
        [
            "MCTS",
            ", ".join(map(held, ("simulations 16", "branch 4", "wave 4", "selection uct"))),
            "679",
            "69.7 (64.3 to 75.0)",
            "320",
            "1.0e+08",
        ],
    ],
    "Tokens per problem, by the scores of process_reward; % with 95 % intervals over problems",
    words=2,
    narrow=5,
)
POLICIES = Table(
    ["", "base", "step_dpo"],
    [
        ["best of 64 by the scorer", "100.0 (100.0 to 100.0)", "100.0 (100.0 to 100.0)"],
        ["tokens per solved sample", "none solved", "1,234,567"],
    ],
)
COMMAND = "gradatim solve 'Make 46 from 3 5 7 8' --policy " + "/a/very/long/path/" * 8
SECTIONS = [
    Section("", ["A finding of [bold] words that goes on and on, " * 6]),
    Section("Policies on 300 held-out problems", [POLICIES]),
    Section("Accuracy against tokens", [SEARCH]),
    Section("Plots", [Picture("a plot", "plots/a.png")]),
    Section("Next", [Verbatim(COMMAND)]),
    Section("Nothing", []),
]


def shown(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_sections(SECTIONS, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_nothing_is_cut_or_broken(width: int) -> None:
    text = shown(width)
    lines = [line for line in text.splitlines() if COMMAND not in line]
    assert max(map(len, lines)) <= width
    assert COMMAND in text, "commands can be copied"
    assert "…" not in text
    words = text.replace("│", " ").split()
    for table in (POLICIES, SEARCH):
        for row in table.rows:
            for cell in row[: table.narrow]:
                assert all(word in words for word in cell.replace("\u00a0", " ").split()), cell
    for number in ("80.7 (76.0 to 100.0)", "> 1,407", "100.0 (100.0 to 100.0)", "12,551"):
        assert number in text, "an interval stays on the line of its number"
    for setting in ("branch [2, 9, 1]", "wave 4", "selection uct"):
        assert setting in text, "and a setting with its value"
    assert "[bold]" in text, "square brackets are no markup"
    assert "1.0e+08" not in text
    assert "Nothing" not in text


def test_tables_are_tables_from_80_columns_on() -> None:
    assert all(text.count("┏") == 2 for text in map(shown, (80, 100, 120)))
    assert "┏" not in shown(50)
    assert "method: beam search" in shown(50)


def test_widest_column_that_can_be_broken_gives_way_first() -> None:
    header, rows = ["name", "number"], [["one two three", "12 (3 to 4)"]]
    assert fitting_widths(header, rows, 1, 100) == [13, 11]
    assert fitting_widths(header, rows, 1, 27) == [9, 11]
    assert fitting_widths(header, rows, 1, 23) == [5, 11]
    assert fitting_widths(header, rows, 1, 22) is None
    assert fitting_widths(["", "best of n needs"], [["a", "> 1"]], 1, 20) == [1, 12]


def test_lines_break_at_spaces_alone() -> None:
    assert broken("held-out problems of " + held("width 2"), 9) == ["held-out", "problems", "of", "width 2"]
    assert broken("unbreakable", 4) == ["unbreakable"]
    assert broken("", 4) == [""]
