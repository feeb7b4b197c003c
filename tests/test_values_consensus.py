"""Values that two ways to tell agree on, and how often they do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clean_task import Clean, Given, write
from gradatim.counts import total_counts
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.tasks.base import grade
from gradatim.tree import Node, Problem, Tree
from gradatim.values.backup import Backup
from gradatim.values.consensus import Consensus
from gradatim.values.imported import Imported
from gradatim.values.oracle import Oracle
from scripted_countdown import TASK, new_tree, random_policy
from small_runs import small_recipe
from supervision_trees import valued_trees

LABELS: dict[str, Any] = {"first": Imported(label="one"), "second": Imported(label="other")}
LEVELS = st.none() | st.integers(0, 4).map(lambda level: level / 4)


@given(tree=valued_trees(), data=st.data(), tolerance=st.sampled_from([0.0, 0.25, 0.5]))
def test_steps_keep_the_mean_of_two_values_that_agree(tree: Tree, data: st.DataObject, tolerance: float) -> None:
    told: dict[Node, list[float | None]] = {}
    for node in tree.nodes[1:]:
        node.reward = 0.0
        told[node] = [data.draw(LEVELS) for _ in range(2)]
        node.scores = {
            name: value for name, value in zip(("one", "other"), told[node], strict=True) if value is not None
        }
    if not all(any(values[place] is not None for values in told.values()) for place in range(2)):
        return  # what was not told at all is told by the outcomes
    for node in tree.nodes[1:]:
        node.scores["value"] = 7.0  # of a pass before
    asyncio.run(Consensus(**LABELS, tolerance=tolerance)(tree, Given({})))
    expected = {}
    for node, (one, other) in told.items():
        if one is not None and other is not None and abs(one - other) <= tolerance:
            expected[node.id] = (one + other) / 2
    assert {node.id: node.scores["value"] for node in tree.nodes[1:] if "value" in node.scores} == expected
    both = sum(None not in values for values in told.values())
    alone = sum(values.count(None) == 1 for values in told.values())
    counts = {"agreed on": len(expected), "not agreed on": both - len(expected), "told by one alone": alone}
    assert total_counts([tree, tree])["value"] == {what: 2 * count for what, count in counts.items()}


def labelled(one: str, other: str) -> Tree:
    """A solution of so many steps, labelled right or wrong by two."""
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, *(f"{place}\n" for place in range(len(one))))
    for node, first, second in zip(leaf.path()[1:], one, other, strict=True):
        node.scores = {name: float(mark) for name, mark in (("one", first), ("other", second)) if mark != "?"}
    grade(tree, Clean())
    return tree


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("1100", "1101", "110"),  # the first error is what counts, and what follows it nothing
        ("1100", "1000", ""),
        ("1111", "1111", "1111"),
        ("1110", "1111", ""),
        ("11?0", "1110", ""),
        ("110?", "110?", "110"),
    ],
)
def test_solutions_keep_their_steps_where_the_first_error_is_agreed_on(one: str, other: str, kept: str) -> None:
    tree = labelled(one, other)
    part = Consensus(**LABELS, threshold=0.5, of="first_errors")
    asyncio.run(part(tree, Given({})))
    assert [node.scores["value"] for node in tree.nodes[1:] if "value" in node.scores] == [float(mark) for mark in kept]
    with pytest.raises(GradatimError, match="a first error is told by a threshold: say up to which value"):
        Consensus(**LABELS, of="first_errors")


def test_estimates_and_a_truth_agree_by_a_threshold_and_keep_what_they_rest_on() -> None:
    tree = new_tree(seed=3)
    asyncio.run(random_policy().extend([tree.root], 30, steps=None))
    grade(tree, TASK)
    asyncio.run(Consensus(first=Backup(), second=Oracle(), threshold=0.0)(tree, Given({}, TASK)))
    for node in tree.nodes[1:]:
        estimate, truth = node.scores["value_first"], node.scores["value_second"]
        assert ("value" in node.scores) == ((estimate > 0) == (truth > 0))
        assert node.counts.get("value", node.counts["value_first"]) == node.counts["value_first"]


def test_a_recipe_knows_what_it_writes_and_whether_it_samples() -> None:
    part = Consensus(first=Backup(), second=Oracle())
    assert part.written == {"value", "value_first", "value_second"}
    assert not part.runs_models
    assert make("values", {"consensus": {"first": "backup", "second": {"scored": {"scorer": "rollouts"}}}}).runs_models
    both = {"name": "consensus", "first": "backup", "second": "oracle"}
    with pytest.raises(GradatimError, match="write 'value_first' more than once"):
        small_recipe(values=[{"name": "backup", "key": "value_first"}, both])
