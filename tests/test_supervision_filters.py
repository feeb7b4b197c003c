"""Filters: each keeps what its sentence says and drops the rest, in order, and what it did is told."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from clean_task import Clean, Given, ending, write
from gradatim.errors import GradatimError
from gradatim.part import make, names
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.run import Progress, run_recipe
from gradatim.run.nothing_learned import no_terms, same_targets
from gradatim.run.outcomes import outcomes_of
from gradatim.run.stages import dependencies
from gradatim.search.regrowth import ControlledErrors
from gradatim.supervision import (
    RightSolutions,
    SiblingPairs,
    SolutionPairs,
    StepLabels,
    StreamOfSearch,
    Term,
    labelled_step,
    preference_rows,
)
from gradatim.supervision.chosen import Choice, chosen_terms
from gradatim.supervision.filters import Filter
from gradatim.supervision.filters.difficulty import share_right
from gradatim.tasks.base import grade
from gradatim.tree import Node, Problem, Tree
from small_runs import small_recipe
from supervision_trees import VALUE, valued_trees

KIND = "supervision/filters"
CONSTRUCTIONS = [StepLabels(), SiblingPairs(pairing="all"), SolutionPairs(), RightSolutions(), StreamOfSearch()]
NEEDED: dict[str, dict[str, Any]] = {
    "depth": {"first": 2, "last": 3},
    "difficulty": {"least": 0.3, "most": 0.7},
    "disagreement": {"scores": [VALUE, "other"]},
    "sample": {"count": 3},
    "balance": {"per_tree": 4, "per_depth": 5},
}
FOREST = st.lists(valued_trees(max_nodes=10), min_size=1, max_size=3)


def made(name: str) -> Filter:
    found: Filter = make(KIND, {"name": name, **NEEDED.get(name, {})})
    return found


def terms_of(trees: Sequence[Tree]) -> list[Term]:
    return chosen_terms(trees, CONSTRUCTIONS, [], Clean())[0]


@pytest.mark.parametrize("name", names(KIND))
@settings(max_examples=30, deadline=None)
@given(trees=FOREST)
def test_a_filter_keeps_some_of_the_terms_in_their_order_and_keeps_them_again(name: str, trees: list[Tree]) -> None:
    chosen, terms = made(name), terms_of(trees)
    kept = chosen(terms)
    places = {id(term): place for place, term in enumerate(terms)}
    assert [places[id(term)] for term in kept] == sorted({places[id(term)] for term in kept})
    assert [*map(id, chosen(kept))] == [*map(id, kept)]
    assert chosen([]) == []
    assert chosen.drops
    assert "\n" not in chosen.drops


def begins(term: Term) -> int:
    """Counted from 1: the first step of the first side that another side has not."""
    first, *others = [list(group.nodes) for group in term.groups]
    if others:
        first = [node for node in first if not all(node in other for other in others)]
    return first[0].depth


@settings(max_examples=30, deadline=None)
@given(trees=FOREST)
def test_depth_and_difficulty_and_disagreement_are_what_a_loop_says(trees: list[Tree]) -> None:
    for tree in trees:
        for node in tree.nodes[1:]:
            node.scores["other"] = (node.id % 5) / 4
    terms = terms_of(trees)
    kept = {name: {*map(id, made(name)(terms))} for name in ("depth", "difficulty", "disagreement")}
    for term in terms:
        assert (id(term) in kept["depth"]) == (2 <= begins(term) <= 3)
        ends = [node.scores for node in term.ends]
        assert (id(term) in kept["disagreement"]) == all(
            VALUE in each and "other" in each and abs(each[VALUE] - each["other"]) <= 0.2 for each in ends
        )
        if term.ends[0].tree in trees:
            leaves = [leaf for leaf in term.ends[0].tree.leaves() if leaf.correct is not None]
            right = sum(bool(leaf.correct) for leaf in leaves)
            assert (id(term) in kept["difficulty"]) == bool(leaves and 0.3 <= right / len(leaves) <= 0.7)


def test_difficulty_counts_what_the_search_drew_and_knows_it_of_written_traces() -> None:
    tree = Tree(Problem("p", "go "))
    for text in ("a", "b", "b", "x"):
        write(tree, f"{text}\n", text)
    grade(tree, Clean())
    assert share_right(tree) == 0.75
    asyncio.run(ControlledErrors(limit=1)(tree, Given({"policy": ScriptedPolicy(ending(1.0))})))
    assert sum(leaf.correct is False for leaf in tree.leaves()) > 1
    assert share_right(tree) == 0.75
    (trace,) = StreamOfSearch()(tree)
    assert share_right(trace.ends[0].tree) == 0.75
    assert share_right(Tree(tree.problem)) is None
    found = outcomes_of([tree], asked=1, max_step_tokens=9, max_steps=9)
    assert (found.solutions, found.right) == (4, 3)


@settings(max_examples=30, deadline=None)
@given(trees=FOREST, seed=st.integers(0, 3))
def test_balance_evens_out_labels_trees_and_depths(trees: list[Tree], seed: int) -> None:
    terms = terms_of(trees)
    kept = make(KIND, {"balance": {"seed": seed}})(terms)
    labels = [term.targets[0] > 0.5 for term in kept if len(term.groups) == 1 and term.targets]
    fewer = [term.targets[0] > 0.5 for term in terms if len(term.groups) == 1 and term.targets]
    assert labels.count(True) == labels.count(False) == min(fewer.count(True), fewer.count(False))
    assert len(kept) - len(labels) == len(terms) - len(fewer), "pairs and solutions without a label stay"
    of_trees = make(KIND, {"balance": {"labels": False, "per_tree": 3, "seed": seed}})(terms)
    sizes = Counter(id(term.ends[0].tree) for term in terms)
    assert Counter(id(term.ends[0].tree) for term in of_trees) == {key: min(3, size) for key, size in sizes.items()}
    of_depths = make(KIND, {"balance": {"labels": False, "per_depth": 2, "seed": seed}})(terms)
    sizes = Counter(map(begins, terms))
    assert Counter(map(begins, of_depths)) == {key: min(2, size) for key, size in sizes.items()}


@settings(max_examples=30, deadline=None)
@given(trees=FOREST, count=st.integers(1, 9))
def test_duplicates_across_trees_go_and_a_sample_has_its_size(trees: list[Tree], count: int) -> None:
    terms = terms_of(trees)
    twice = [*trees, *(Tree.from_json(tree.to_json()) for tree in trees)]
    assert len(made("duplicates")(terms_of(twice))) == len(made("duplicates")(terms)) <= len(terms)
    pairs = [term for term in terms if len(term.groups) == 2]
    rows = [tuple(row.values()) for row in preference_rows(pairs)]
    kept = [tuple(row.values()) for row in preference_rows(made("duplicates")(pairs))]
    assert set(kept) == set(rows)
    sample = make(KIND, {"sample": {"count": count}})
    assert len(sample(terms)) == min(count, len(terms))
    assert [*map(id, sample(terms))] == [*map(id, sample(terms))]


def test_a_different_seed_draws_another_sample() -> None:
    tree = Tree(Problem("p", "go "))
    terms = [labelled_step(write(tree, str(number)), 1.0) for number in range(40)]
    drawn = [make(KIND, {"sample": {"count": 5, "seed": seed}})(terms) for seed in range(4)]
    assert len({tuple(term.ends[0].id for term in each) for each in drawn}) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"depth": {"first": 3, "last": 2}}, "depth keeps nothing from step 3 to 2; raise last"),
        ({"difficulty": {"least": 0.6, "most": 0.4}}, "difficulty keeps no share from 0.6 to 0.4; raise most"),
        ({"balance": {"labels": False}}, "balance evens out nothing: set labels, per_tree or per_depth"),
        ("sample", "the filter 'sample': needs 'count', which must be given"),
    ],
)
def test_a_filter_that_keeps_nothing_is_refused(content: Any, said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        make(KIND, content)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"filters": [{"disagreement": {"scores": ["value", "jugde"]}}]}, "learn.0.filters.0 learns from 'jugde'"),
        ({"filters": ["dpeth"]}, "there is no filter 'dpeth'; did you mean 'depth'?"),
        ({"data": [], "demonstrations": 3, "filters": ["duplicates"]}, "leave them out"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_its_filters(entry: dict[str, Any], said: str) -> None:
    learn = {"objective": "step_dpo", "data": ["sibling_pairs"], **entry}
    learn["objective"] = "sft" if "demonstrations" in entry else "step_dpo"
    with pytest.raises(GradatimError, match=said):
        small_recipe(judge=None, objective=None, learn=[learn])


def valued(*values: float) -> Tree:
    """A tree with open siblings of these values."""
    tree = Tree(Problem("p", "go "))
    for number, value in enumerate(values):
        write(tree, f"{number}\n", "a").parent.scores[VALUE] = value  # type: ignore[union-attr]
    grade(tree, Clean())
    return tree


def test_the_filter_that_left_nothing_or_one_label_alone_is_named() -> None:
    trees = [valued(0.0, 1.0, 1.0)]
    filters = ["duplicates", {"depth": {"first": 2}}, {"sample": {"count": 9}}]
    content = {"objective": {"name": "step_dpo"}, "data": [{"name": "sibling_pairs", "pairing": "all"}]}
    made = small_recipe(judge=None, objective=None, learn=[content | {"filters": filters}])
    assert str(no_terms(made, made.learn[0], trees)) == (
        "the filter learn.0.filters.1 (drops: begins before step 2) leaves no pairs of steps to learn from; loosen it"
    )
    filters = ["duplicates", {"sample": {"count": 1}}]
    content = {"model": "scorer", "objective": "process_reward", "data": ["step_labels"], "filters": filters}
    made = small_recipe(objective=None, learn=[content])
    terms, _ = chosen_terms(trees, made.learn[0].data, made.learn[0].filters, made.task)
    error = same_targets(made, made.learn[0], terms, trees)
    assert "the filter learn.0.filters.1 (drops: beyond 1 chosen by chance) leaves step labels of" in str(error)
    assert "has nothing to tell apart; loosen it" in str(error)
    whole = small_recipe(objective=None, learn=[content | {"filters": filters[:1]}])
    terms, _ = chosen_terms(trees, whole.learn[0].data, [], whole.task)
    assert same_targets(whole, whole.learn[0], terms, trees) is None


def test_a_run_reports_what_was_kept_and_why_the_rest_is_missing(tmp_path: Path) -> None:
    filters: list[Any] = ["duplicates", {"depth": {"last": 2}}, {"balance": {"per_tree": 3, "labels": False}}]
    learn = {
        "objective": "step_dpo",
        "data": [{"name": "sibling_pairs", "pairing": "all"}, "controlled_pairs"],
        "filters": filters,
        "training": {"learning_rate": 1e-4, "tokens_per_batch": 512},
        "stop_by": "nothing",
    }
    changes: dict[str, Any] = {
        "judge": None,
        "objective": None,
        "problems": {"train": 6, "test": 1},
        "regrow": [{"name": "controlled_errors", "steps": 2}],
        "evaluation": {"samples": 2, "pass_at": [1], "best_of": [1], "majority": [], "greedy": False},
    }
    made = small_recipe(**changes, learn=[learn])
    report = run_recipe(made, tmp_path, progress=Progress(Console(file=io.StringIO())))
    record = json.loads((tmp_path / "stages" / "policy-1.json").read_text(encoding="utf-8"))
    table = [Choice(**each) for each in record["learned_from"]]
    assert report["learned_from"] == {"policy-1": record["learned_from"]}
    assert [each.part for each in table] == [
        "sibling_pairs (pairing all)", "controlled_pairs", "duplicates", "depth (last 2)",
        "balance (labels False, per_tree 3)",
    ]  # fmt: skip
    given = sum(each.kept for each in table[:2])
    for before, after in zip([Choice("", given), *table[2:]], table[2:], strict=False):
        assert before.kept == after.kept + after.dropped
        assert after.why
    assert record["examples"] == table[-1].kept <= 18
    assert report["counts"]["round-1"]["controlled_errors"]["errors made"] <= table[1].kept
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## What was learned from" in page
    assert "| policy-1 | depth (last 2) | begins before step 1 or behind step 2 |" in page
    assert "| round-1 | controlled_errors |" in page
    other = small_recipe(**changes, learn=[learn | {"filters": filters[:2]}])
    changed = [name for name in ("round-1", "policy-1") if dependencies(made, name) != dependencies(other, name)]
    assert changed == ["policy-1"]


def test_the_note_of_a_leaf_survives_its_tree(tmp_path: Path) -> None:
    tree = Tree(Problem("p", "go "))
    write(tree, "a\n", "a")
    grade(tree, Clean())
    asyncio.run(ControlledErrors()(tree, Given({"policy": ScriptedPolicy(ending(1.0))})))
    again = Tree.from_json(json.loads(json.dumps(tree.to_json())))
    assert [regrown(node) for node in again.nodes] == [regrown(node) for node in tree.nodes]
    assert sum(map(regrown, tree.nodes)) == 1


def regrown(node: Node) -> bool:
    return node.notes.get("regrown") == "controlled_errors"
