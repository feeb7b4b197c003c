"""Scorers around other scorers: what they make of scores that are known, and of those that are missing."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.budget import SCORER
from gradatim.errors import GradatimError
from gradatim.part import make, models_of, part
from gradatim.recipes import parse_recipe
from gradatim.run import run_recipe
from gradatim.run.contents import contents
from gradatim.scorers.base import Context, Scorer, ScorerPart, StepScorer
from gradatim.scorers.calibration import Calibration, Isotonic
from gradatim.scorers.wrapper import Wrapper
from gradatim.search.beam import Beam
from gradatim.store import TreeStore
from gradatim.tree import Node, Problem, Step, Tree
from scripted_countdown import TASK, new_tree, random_policy
from small_runs import small_content, small_recipe

NOTHING: Any = None  # the context of scorers that need none


@part
class Given(ScorerPart):
    """Scores that a test wrote down, by the text of a step."""

    scores: dict[str, float | None]
    """The scores."""

    def open(self, context: Context) -> Scorer:
        return GivenScorer(self.name, self.scores.get)


@part
class Oracle(ScorerPart):
    """Knows the truth."""

    verifies: ClassVar[bool] = True

    def open(self, context: Context) -> Scorer:
        return GivenScorer(self.name, lambda text: 1.0)


class GivenScorer(StepScorer):
    """Reads one token of a step, as far as the budget goes."""

    def __init__(self, name: str, scores: Callable[[str], float | None]) -> None:
        super().__init__(name)
        self.scores = scores
        self.released: list[Tree] = []

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        paid = [node.tree.budget.take(SCORER, read=1) for node in nodes]
        return [self.scores(node.step.text) if each else None for node, each in zip(nodes, paid, strict=True)]

    def release(self, tree: Tree) -> None:
        self.released.append(tree)


def given_part(key: str, **scores: float | None) -> Given:
    return Given(key=key, scores=scores)


def scored(chosen: ScorerPart, nodes: Sequence[Node]) -> tuple[list[float | None], Any]:
    """The scores of nodes, and the scorer."""
    scorer = chosen.open(NOTHING)
    asyncio.run(scorer.score(nodes))
    return [node.scores.get(chosen.name) for node in nodes], scorer


def chain(*texts: str, limit: int | None = None) -> list[Node]:
    """The steps of one path."""
    tree = new_tree(Problem("p", "q\n"), limit=limit)
    nodes = [tree.root]
    for text in texts:
        nodes.append(tree.add(nodes[-1], Step((1,), text)))
    return nodes[1:]


A, B = given_part("a", x=0.2, y=0.8), given_part("b", x=0.6, y=0.1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.2 + 0.6) / 2),
        ({"weights": [2, -1]}, 2 * 0.2 - 0.6),
        ({"weights": [1, 3], "scale": "logits"}, math.log(0.25) + 3 * math.log(1.5)),
        ({"weights": [0.5, 0.5], "scale": ["logarithms", "logits"]}, 0.5 * math.log(0.2) + 0.5 * math.log(1.5)),
    ],
)
def test_a_mixture_is_a_weighted_sum(options: dict[str, Any], expected: float) -> None:
    mixture = make("scorers", {"name": "mixture", "scorers": [A, B], **options})
    node = chain("x")[0]
    assert scored(mixture, [node])[0] == [pytest.approx(expected)]
    assert node.scores == {"a": 0.2, "b": 0.6, "mixture": pytest.approx(expected)}


@pytest.mark.parametrize(("rule", "expected"), [("mean", 0.4), ("min", 0.2), ("lower_bound", 0.4 - 2 * 0.2)])
def test_an_ensemble_is_careful_where_its_members_disagree(rule: str, expected: float) -> None:
    ensemble = make("scorers", {"ensemble": {"scorers": [A, B], "rule": rule, "deviations": 2}})
    assert scored(ensemble, chain("x"))[0] == [pytest.approx(expected)]


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_least_is_below_the_mean_and_so_is_a_lower_bound(rows: list[list[float]]) -> None:
    texts = [str(place) for place in range(len(rows))]
    members = [Given(key=str(k), scores={t: row[k] for t, row in zip(texts, rows, strict=True)}) for k in range(3)]
    nodes = chain(*texts)
    rules = ("min", "mean", "lower_bound")
    least, mean, bound = (
        scored(make("scorers", {"ensemble": {"scorers": members, "rule": rule, "key": rule}}), nodes)[0]
        for rule in rules
    )
    for row, low, middle, careful in zip(rows, least, mean, bound, strict=True):
        assert low == min(row)
        assert middle == pytest.approx(sum(row) / 3)
        assert careful is not None
        assert middle is not None
        assert careful <= middle + 1e-12


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=40), st.floats(-1, 2))
def test_what_is_repeated_adds_nothing_to_refined_rewards(texts: list[str], threshold: float) -> None:
    raw = given_part("raw", x=0.9, y=0.4, z=0.95)
    nodes = chain(*texts)
    clipped, _ = scored(make("scorers", {"clip": {"scorer": raw, "threshold": threshold}}), nodes)
    assert all(each is not None and each <= 0 for each in clipped)
    assert clipped == [min(node.scores["raw"] - threshold, 0) for node in nodes]
    changes, _ = scored(make("scorers", {"delta": {"scorer": raw}}), nodes)
    for end in range(1, len(nodes) + 1):  # of every beginning, too
        assert math.fsum(changes[:end]) == pytest.approx(nodes[end - 1].scores["raw"])  # type: ignore[arg-type]


def test_both_refinements_bound_a_solution_by_its_last_step() -> None:
    raw = given_part("raw", x=0.9, y=0.3)
    both = make("scorers", {"delta": {"scorer": {"clip": {"scorer": raw, "threshold": 0.5}}}})
    changes, _ = scored(both, chain("x", "x", "y", "x", "x"))
    assert changes == pytest.approx([0, 0, -0.2, 0.2, 0])


def test_a_change_scores_the_step_before_once() -> None:
    nodes = chain("x", "y", "x")
    changes, _ = scored(make("scorers", {"delta": {"scorer": A}}), nodes[2:])
    assert changes == [pytest.approx(0.2 - 0.8)]
    assert [sorted(node.scores) for node in nodes] == [[], ["a"], ["a", "delta"]]


def test_what_is_not_scored_within_is_missing_and_counted() -> None:
    lacking = given_part("b", x=0.6)
    nodes = chain("x", "y", "x")
    found, scorer = scored(make("scorers", {"mixture": {"scorers": [lacking, A]}}), nodes)
    assert found == [pytest.approx(0.4), None, pytest.approx(0.4)]
    assert (scorer.missing, scorer.inner[0].missing, scorer.inner[1].missing) == (1, 1, 0)
    assert "a" not in nodes[1].scores, "what cannot be mixed is not paid for"
    changes, scorer = scored(make("scorers", {"delta": {"scorer": lacking}}), nodes)
    assert changes == [0.6, None, None]
    assert scorer.missing == 2


def test_a_step_that_is_asked_for_again_is_missing_once_and_no_more_when_it_is_scored() -> None:
    known: dict[str, float] = {}
    scorer = GivenScorer("late", known.get)
    nodes = chain("x", "y")
    for expected in (2, 2, 1):
        asyncio.run(scorer.score(nodes))
        assert scorer.missing == expected
        known |= {} if expected == 2 and not known and nodes[0].tree.budget.total < 4 else {"x": 0.5}
    assert nodes[0].scores == {"late": 0.5}


@pytest.mark.parametrize("limit", range(8))
def test_a_budget_may_end_anywhere(limit: int) -> None:
    nodes = chain("x", "y", "x", limit=limit)
    found, scorer = scored(make("scorers", {"ensemble": {"scorers": [A, B]}}), nodes)
    assert [each is not None for each in found] == [place < max(0, limit - 3) for place in range(3)]
    assert scorer.missing == sum(each is None for each in found)
    assert nodes[0].tree.budget.total == min(limit, 6)


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (
            {"mixture": {"scorers": [A, Given(key="a", scores={})]}},
            "two scorers within 'mixture' write scores of the name 'a'",
        ),
        ({"ensemble": {"scorers": [A, A]}}, "two scorers within 'ensemble' write scores of the name 'a'"),
        ({"delta": {"scorer": A, "key": "a"}}, "or it has that name itself; give one of them another name as its key"),
        ({"delta": {"scorer": {"delta": {"scorer": A}}}}, "two scorers within 'delta'"),
        ({"mixture": {"scorers": []}}, "scorers"),
        ({"mixture": {"scorers": [A, B], "weights": [1]}}, "a mixture of 2 scorers has 1 weights; give one each"),
        ({"mixture": {"scorers": [A], "scale": ["logits", "logits"]}}, "a mixture of 1 scorers has 2 scales"),
        ({"mixture": {"scorers": [A], "weights": [math.nan]}}, "finite"),
        ({"ensemble": {"scorers": [A]}}, "at least 2"),
        ({"clip": {"scorer": A}}, "needs 'threshold'"),
        ({"calibrated": {"scorer": A}}, "needs 'calibration'"),
    ],
)
def test_what_cannot_work_is_refused(scorer: dict[str, Any], said: str) -> None:
    with pytest.raises(GradatimError) as caught:
        make("scorers", scorer)
    assert said in str(caught.value)


def test_one_scorer_may_serve_twice() -> None:
    change = make("scorers", {"delta": {"scorer": A}})
    nodes = chain("x", "y")
    found, _ = scored(make("scorers", {"mixture": {"scorers": [A, change], "weights": [1, 1]}}), nodes)
    assert found == pytest.approx([0.4, 1.4])
    assert nodes[0].tree.budget.total == 2


def test_scores_without_a_logarithm_or_a_logit_are_refused() -> None:
    negative = given_part("n", x=-1.0)
    for scale, said in (("logits", "no probability"), ("logarithms", "no logarithm")):
        with pytest.raises(GradatimError, match=said):
            scored(make("scorers", {"mixture": {"scorers": [negative], "scale": scale}}), chain("x"))


def test_numbers_that_are_none_are_refused_where_they_arise() -> None:
    with pytest.raises(GradatimError, match="'n' gave a score that is not a number"):
        scored(make("scorers", {"clip": {"scorer": given_part("n", x=math.nan), "threshold": 0}}), chain("x"))


def test_trees_that_are_done_are_forgotten_by_all() -> None:
    scorer: Any = make("scorers", {"mixture": {"scorers": [A, {"clip": {"scorer": B, "threshold": 0}}]}}).open(NOTHING)
    tree = new_tree()
    scorer.release(tree)
    assert [scorer.inner[0].released, scorer.inner[1].inner[0].released] == [[tree], [tree]]


def test_models_and_truth_are_found_within() -> None:
    inner = [{"process_reward": {"model": "judge"}}, {"delta": {"scorer": {"uncertainty": {"model": "other"}}}}]
    mixture = make("scorers", {"mixture": {"scorers": inner}})
    assert models_of(mixture) == {"judge", "other"}
    assert not mixture.knows_truth
    assert make("scorers", {"delta": {"scorer": {"mixture": {"scorers": [A, Oracle()]}}}}).knows_truth
    assert make("scorers", "rollouts").knows_truth


def test_an_evaluation_refuses_what_holds_a_scorer_that_verifies() -> None:
    content = small_content(judge=None, objective=None, search=None, problems={"test": 2})
    verifying = {"clip": {"scorer": "rollouts", "threshold": 0}}
    content["evaluation"]["scorer"] = {"ensemble": {"scorers": ["uncertainty", verifying]}}
    with pytest.raises(GradatimError, match=r"evaluation.scorer knows the truth about solutions"):
        parse_recipe(content, "small")


def test_what_a_scorer_within_writes_is_not_written_by_another() -> None:
    content = small_content(judge=None, objective=None, search={"name": "beam"})
    content["scorer"] = {"delta": {"scorer": {"rollouts": {"key": "value"}}}}
    with pytest.raises(GradatimError, match="values, regrow and scorer write 'value' more than once"):
        parse_recipe(content, "small")


def test_the_file_of_a_calibration_belongs_to_what_depends_on_it(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    content = small_content(judge=None, objective=None, search=None, problems={"test": 2})
    calibrated = {"calibrated": {"scorer": "uncertainty", "calibration": str(file)}}
    content["evaluation"]["scorer"] = {"mixture": {"scorers": [calibrated]}}
    recipe: Any = parse_recipe(content, "small")
    digests = []
    for values in ((0.1, 0.9), (0.2, 0.9)):
        Calibration(Isotonic((0.0, 1.0), values), 2, 0).write(file)
        digests.append(contents(recipe)["evaluation.scorer"][str(file)])
    assert len(set(digests)) == 2


def test_a_run_loads_the_models_within_and_scores_by_them(tmp_path: Path) -> None:
    evaluation = {
        "samples": 2, "pass_at": [1], "best_of": [2], "majority": [], "greedy": False,
        "scorer": {"mixture": {"scorers": ["process_reward", "uncertainty"], "scale": ["logits", "logarithms"]}},
    }  # fmt: skip
    judge = {"model": "shipped:countdown-reward", "train": False}
    nothing: dict[str, Any] = {"objective": None, "search": None, "problems": {"test": 1}}
    run_recipe(small_recipe(judge=judge, evaluation=evaluation, **nothing), tmp_path)
    with TreeStore(tmp_path / "trees" / "evaluate-base.jsonl") as store:
        steps = [node for tree in store for node in tree.nodes[1:]]
    assert steps
    assert all(sorted(node.scores) == ["mixture", "process_reward", "uncertainty"] for node in steps)


@pytest.mark.parametrize("name", ["mixture", "ensemble", "delta"])
def test_searches_are_guided_by_scorers_of_scorers(name: str) -> None:
    by_text = Texts(key="texts")
    options: dict[str, Any] = {"scorer": by_text} if name == "delta" else {"scorers": [by_text, Texts(key="other")]}
    chosen = make("scorers", {name: options})
    scorer = chosen.open(NOTHING)
    assert isinstance(scorer, Wrapper)
    tree = new_tree(limit=200)
    asyncio.run(Beam(width=2, branch=2)(tree, random_policy(), scorer, answer=TASK.answer))
    assert any(name in node.scores for node in tree.nodes)
    assert all(set(node.scores) >= {"texts"} for node in tree.nodes if name in node.scores)


@part
class Texts(ScorerPart):
    """A number that depends on the text of a step only and means nothing."""

    def open(self, context: Context) -> Scorer:
        return GivenScorer(self.name, lambda text: random.Random(self.name + text).random())
