"""Trees as text and as pictures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gradatim import EndReason, Step, Tree
from gradatim.errors import GradatimError
from gradatim.tasks.base import grade
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.view import render
from gradatim.view.figure import draw_tree
from gradatim.view.layout import tidy_layout
from gradatim.view.selection import hidden_below, select_nodes


def small_tree() -> Tree:
    """One right, one wrong and one cut-off solution."""
    tree = Tree(make_problem([3, 5, 7], 38))
    product = tree.add(tree.root, Step((1,), " 7 * 5 = 35 | 3 35\n"))
    tree.add(product, Step((2,), " 35 + 3 = 38 | 38", end=EndReason.END_OF_TEXT))
    tree.add(product, Step((3,), " 35 - 3 = 38 | 38", end=EndReason.END_OF_TEXT))
    tree.add(tree.root, Step((4,), " 7 + 5 =", end=EndReason.BUDGET))
    product.scores["value"] = 0.5
    grade(tree, Countdown())
    return tree


parents = st.integers(0, 40).flatmap(
    lambda count: st.tuples(*(st.integers(0, index) for index in range(count))).map(lambda above: [None, *above])
)


@given(parents)
def test_layout_keeps_neighbours_apart_and_parents_in_the_middle(above: list[int | None]) -> None:
    places = tidy_layout(above)
    depths = [0] * len(above)
    for index, parent in enumerate(above):
        if parent is not None:
            depths[index] = depths[parent] + 1
    assert min(places) == 0.0
    for depth in set(depths):
        level = sorted(place for place, own in zip(places, depths, strict=True) if own == depth)
        assert all(right - left >= 1 - 1e-9 for left, right in itertools.pairwise(level))
    for index in range(len(above)):
        children = [places[child] for child, parent in enumerate(above) if parent == index]
        if children:
            assert abs(places[index] - (children[0] + children[-1]) / 2) < 1e-9


@given(parents, st.integers(1, 45))
def test_shown_and_hidden_nodes_are_all_nodes(above: list[int | None], limit: int) -> None:
    tree = Tree(make_problem([1, 2], 3))
    for index, parent in enumerate(above[1:], start=1):
        assert parent is not None
        tree.add(tree.nodes[parent], Step((index,), f" {index}\n"))
    shown = select_nodes(tree, limit)
    assert len(shown) == min(limit, len(tree))
    assert all(node.parent is None or node.parent.id in shown for node in tree.nodes if node.id in shown)
    assert len(shown) + sum(hidden_below(tree, shown).values()) == len(tree)


def test_text_has_every_step_with_its_mark() -> None:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(render(small_tree()))
    text = capture.get()
    lines = {line.strip("│├└─ "): line for line in text.splitlines()}
    assert any("35 + 3 = 38 | 38" in line and "✓" in line for line in lines)
    assert any("35 - 3 = 38 | 38" in line and "✗" in line for line in lines)
    assert any("7 + 5 =" in line and "✂" in line for line in lines)
    assert any("7 * 5 = 35" in line and "0.5" in line for line in lines)


def test_figure_is_written(tmp_path: Path) -> None:
    draw_tree(small_tree(), tmp_path / "tree.png", by="value")
    draw_tree(small_tree(), tmp_path / "whole.svg")
    draw_tree(small_tree(), tmp_path / "part.svg", limit=2)
    assert (tmp_path / "tree.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "part.svg").stat().st_size < (tmp_path / "whole.svg").stat().st_size


def printed(tree: Tree, width: int = 80, **options: Any) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(tree, **options))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_long_chain_stays_on_the_screen() -> None:
    tree = Tree(make_problem([3, 5, 7], 38))
    node = tree.root
    for number in range(60):
        node = tree.add(node, Step((number,), f"Step {number} of a long solution in words that nobody may break.\n"))
    for number in (60, 61):
        tree.add(node, Step((number,), f"End {number}", end=EndReason.END_OF_TEXT))
    lines = printed(tree)
    assert len(lines) == 63
    assert all(len(line) <= 80 for line in lines)
    assert all(line.endswith("break.") for line in lines[1:61])
    assert [line.strip("│├└─ ") for line in lines[61:]] == ["End 60", "End 61"]
    assert lines[61].index("End") > lines[60].index("Step")  # where there is a choice, steps are set in


def test_no_word_is_broken_at_80_columns() -> None:
    tree = Tree(make_problem([3, 5, 7], 38))
    text = "Altogether thirty-eight apples remain in the orchard after everybody has taken three of them home"
    for branch in range(2):
        node = tree.add(tree.root, Step((branch,), f"{text} {branch}\n"))
        for number in range(2):
            tree.add(node, Step((number,), f"{text} {number}\n"))
    words = {word for line in printed(tree) for word in line.strip("│├└─ ").split()}
    assert words <= {*text.split(), *tree.problem.prompt.split(), "0", "1", "│"}


def test_without_a_reference_answer_nothing_is_marked_and_the_answer_is_shown() -> None:
    tree = Tree(make_problem([3, 5, 7], 38))
    leaf = tree.add(tree.root, Step((1,), " 38", end=EndReason.END_OF_TEXT))
    leaf.answer = "38"
    text = "\n".join(printed(tree))
    assert "(answer: 38)" in text
    assert "✗" not in text
    assert "✓" not in text


def test_notes_are_shown_behind_their_steps() -> None:
    tree = small_tree()
    tree.nodes[1].notes["judge"] = "a good\nproduct"
    (line,) = [line for line in printed(tree) if "7 * 5 = 35" in line]
    assert line.endswith("(judge: a good ⏎ product)")
    assert not any("verdict" in line for line in printed(tree))


def test_unknown_scores_are_refused(tmp_path: Path) -> None:
    tree = small_tree()
    with pytest.raises(GradatimError, match=r"has the score 'valu'; did you mean 'value'"):
        render(tree, by="valu")
    with pytest.raises(GradatimError, match="has the score 'valu'"):
        draw_tree(tree, tmp_path / "tree.png", by="valu")
    with pytest.raises(GradatimError, match="have no scores at all"):
        render(Tree(make_problem([1, 2], 3)), by="value")
