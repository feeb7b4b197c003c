"""Comparisons from one end to the other, at a size of seconds."""

from __future__ import annotations

import io
import json
import math
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradatim.errors import GradatimError, ProblemError
from gradatim.evaluation import metrics
from gradatim.evaluation.metrics import Sample
from gradatim.recipes import Comparison, load_as, parse_recipe
from gradatim.run import Progress
from gradatim.run.comparing import run_comparison
from gradatim.run.searching import search_into
from gradatim.search import IndependentSampling
from gradatim.store.trees import TreeStore
from gradatim.tree import Tree

SMALL: dict[str, Any] = {
    "kind": "compare",
    "name": "small",
    "task": {"name": "countdown", "seed": 1},
    "policy": {"model": "shipped:countdown", "sampling": {"max_step_tokens": 16, "max_steps": 4}},
    "models": {"scorer": {"model": "shipped:countdown-reward"}, "again": {"model": "shipped:countdown"}},
    "problems": {"test": 6, "validation": 3},
    "seeds": [0, 1],
    "scorers": {"reward": "process_reward", "likely": "uncertainty"},
    "methods": [
        {"name": "best of n", "search": "sampling", "scorer": "reward", "choose_by": "score", "sizes": [1, 2, 4]},
        {"name": "majority", "search": "sampling", "choose_by": "majority", "sizes": [2, 4]},
        {"name": "beam", "search": {"name": "beam", "branch": 2}, "scorer": "reward", "sizes": [1, 2]},
        {"name": "other policy", "search": "sampling", "policy": "again", "sizes": [1, 2]},
    ],
}


BEAM: dict[str, Any] = {"name": "beam", "search": "beam", "scorer": "reward"}


def comparison(**changes: Any) -> Comparison:
    made = parse_recipe(SMALL | changes, "small")
    assert isinstance(made, Comparison)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("compared")
    return folder, run_comparison(comparison(), folder)


def method(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["methods"] if each["name"] == name)


def test_every_method_has_a_point_for_each_size_over_all_problems_and_seeds(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    _, report = finished
    assert [len(each["points"]) for each in report["methods"]] == [3, 2, 2, 2]
    assert all(point["problems"] == 6 for each in report["methods"] for point in each["points"])
    assert all(point["seed_deviation"] is not None for each in report["methods"] for point in each["points"])
    assert report["reference"] == "best of n"


def test_all_tokens_count_and_each_in_its_account(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    whole = method(report, "best of n")["points"][-1]  # all four samples: exactly what was charged
    trees = [tree for seed in (0, 1) for tree in TreeStore(folder / "trees" / f"samples-policy-seed-{seed}.jsonl")]
    for account in ("policy", "scorer"):
        charged = sum(tree.budget.read(account) + tree.budget.written(account) for tree in trees) / len(trees)
        spent = whole["spending"][account]
        assert spent["read"] + spent["written"] == pytest.approx(charged)
    assert set(method(report, "majority")["points"][0]["spending"]) == {"policy"}
    assert set(method(report, "other policy")["points"][0]["spending"]) == {"again"}


def test_a_policy_that_is_a_baseline_draws_as_the_first_does(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    own, other = method(report, "majority")["points"][0], method(report, "other policy")["points"][1]
    assert own["accuracy"] == pytest.approx(other["accuracy"])  # equal weights and seeds: two samples of each


def test_scorers_are_judged_by_depth(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    assert [each["name"] for each in report["scorers"]] == ["reward", "likely"]
    reward = report["scorers"][0]
    assert reward["thresholds"] == "chosen on validation problems"
    assert sum(part["states"] for part in reward["by_depth"]) <= reward["states"]


def test_the_same_command_again_searches_nothing(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = finished
    monkeypatch.setattr("gradatim.run.comparing.search_into", _refuse)
    assert run_comparison(comparison(), folder) == report


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("something is searched again")


def test_a_comparison_that_grows_searches_what_is_new_alone(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    searched = []

    def watched(store: TreeStore, title: str, *rest: Any, **options: Any) -> Any:
        searched.append(title)
        return search_into(store, title, *rest, **options)

    monkeypatch.setattr("gradatim.run.comparing.search_into", watched)
    methods = [*SMALL["methods"][:2], {**SMALL["methods"][2], "sizes": [1, 2, 3]}, SMALL["methods"][3]]
    grown = run_comparison(comparison(methods=methods, seeds=[0]), folder)
    assert searched == ["Beam 3 seed 0"]
    assert len(method(grown, "beam")["points"]) == 3


def test_trees_that_are_not_kept_leave_what_was_counted(tmp_path: Path) -> None:
    small = comparison(methods=SMALL["methods"][:1], seeds=[0], keep_trees=False, judge_steps=False)
    report = run_comparison(small, tmp_path)
    assert not list((tmp_path / "trees").iterdir())
    points = json.loads((tmp_path / "points" / "samples-policy-seed-0.json").read_text())["points"]
    assert [sum(entry["solved"]) / 6 for entry in points] == pytest.approx(
        [point["accuracy"] for point in method(report, "best of n")["points"]]
    )
    assert report["scorers"] == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": {"scorer": {"model": "nowhere/scorer"}, "again": SMALL["models"]["again"]}}, "nowhere/scorer"),
        ({"models": {"scorer": SMALL["models"]["scorer"], "again": {"model": "nowhere/policy"}}}, "nowhere/policy"),
        ({"scorers": {**SMALL["scorers"], "head": {"name": "value_head", "head": "x"}}}, "no head 'x'"),
    ],
)
def test_what_cannot_be_loaded_is_said_before_anything_is_searched(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(GradatimError, match=sentence):
        run_comparison(comparison(**changes), tmp_path)
    assert not list(tmp_path.glob("trees/*"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reference": "bem"}, "nearest: beam|did you mean"),
        ({"methods": [{"name": "beam", "search": "beam"}]}, "needs a scorer"),
        ({"methods": [{"name": "x", "search": "sampling", "choose_by": "score"}]}, "needs a scorer"),
        ({"methods": [{"name": "x", "search": "sampling", "scorer": "rewrd"}]}, "not in scorers"),
        ({"methods": [{"name": "x", "search": "sampling"}] * 2}, "two methods"),
        ({"methods": [{"name": "x", "search": "sampling", "policy": "big"}]}, "not in models"),
        ({"methods": [{"name": "x", "search": "sampling", "sizes": [0]}]}, "greater than 0"),
        ({"scorers": {"truth": "rollouts"}, "methods": SMALL["methods"][1:2]}, "knows the truth"),
        (
            {"scorers": {"truth": {"delta": {"scorer": "rollouts"}}}, "methods": SMALL["methods"][1:2]},
            "knows the truth",
        ),
        ({"scorers": {"reward": "process_reward", "b": {"process_reward": {"model": "again"}}}}, "a key of its own"),
        (
            {
                "scorers": {
                    "reward": "process_reward",
                    "b": {"delta": {"scorer": {"process_reward": {"model": "again"}}}},
                }
            },
            "a key of its own",
        ),
        ({"methods": []}, "compares nothing: name methods, or policies"),
        ({"policies": {"names": ["policy"], "samples": 4}}, "asks for 16 solutions but samples 4"),
        ({"policies": {"names": ["policy", "policy"]}}, "has a policy twice"),
        ({"policies": {"names": ["polcy"]}}, "policies names the model 'polcy'"),
        ({"seeds": []}, "at least 1"),
        ({"seeds": [0, 1, 0]}, "seeds has 0 twice"),
        ({"methods": [BEAM | {"sizes": [2, 2]}]}, "sizes has 2 twice"),
        ({"methods": [BEAM | {"varies": "width.x", "sizes": [2]}]}, "no search within"),
        ({"methods": [BEAM | {"varies": "wdth", "sizes": [2]}]}, "did you mean 'width'"),
        ({"methods": [BEAM | {"varies": "width"}]}, "over no sizes"),
        (
            {
                "methods": [
                    {"name": "x", "search": {"early_stopping": {"search": {"sampling": {"choose_by": "score"}}}}}
                ]
            },
            "needs a scorer",
        ),
        ({"methods": [{"name": "x", "search": {"name": "sampling", "n": None}}]}, "without end"),
    ],
)
def test_what_cannot_be_compared_is_said(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GradatimError, match=sentence):
        comparison(**changes)


def test_a_recipe_of_another_kind_is_told_from_a_comparison() -> None:
    with pytest.raises(GradatimError, match="use 'gradatim run quickstart'"):
        load_as(Comparison, "quickstart")


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_best_of_majority_over_subsets_is_the_mean_of_all_of_them(n: int) -> None:
    generator = random.Random(n)
    unscored = [Sample(0.0, "a", -math.inf, correct) for correct in (True, False)]
    scored = [
        Sample(0.0, generator.choice(["a", "b", "c", None]), generator.random(), generator.random() < 0.5)
        for _ in range(4)
    ]
    samples = unscored + scored
    expected = []
    for subset in combinations(samples, n):
        votes = [sum(other.answer == each.answer for other in subset) for each in subset]
        answered = [place for place, each in enumerate(subset) if each.answer is not None]
        needed = min(0.4 * len(answered), max((votes[place] for place in answered), default=0))
        eligible = [subset[place] for place in answered if votes[place] >= needed]
        best = max(eligible, key=lambda sample: sample.score, default=None)
        expected.append(float(best is not None and bool(best.correct)))
    assert metrics.best_of_majority(samples, n, frequent=0.4) == pytest.approx(sum(expected) / len(expected))


def test_a_judge_that_says_nothing_is_told_of_and_its_tokens_count(tmp_path: Path) -> None:
    """The shipped policy as its own judge writes moves, and never a verdict."""
    console = Console(file=io.StringIO(), width=400)
    said = {"name": "judge", "model": "policy", "template": "Make {step}\n", "max_tokens": 16}
    methods = [{"name": "by words", "search": {"name": "beam", "branch": 2}, "scorer": "words", "sizes": [2]}]
    small: dict[str, Any] = {"judge_steps": False, "problems": {"test": 2}, "seeds": [0]}
    made = comparison(methods=methods, scorers={"words": said}, **small)
    report = run_comparison(made, tmp_path, progress=Progress(console))
    assert "of the judgements of 'judge' are off-format: " in console.file.getvalue()
    spending = method(report, "by words")["points"][0]["spending"]
    assert set(spending) == {"policy", "judge"}
    assert spending["judge"]["written"] > 0


def samples_of_two(tmp_path: Path, *scorers: str, **changes: Any) -> dict[str, Any]:
    """The report of best-of-two by each of some scorers, all on the same samples."""
    known: dict[str, Any] = {
        "reward": "process_reward",
        "moved": {"delta": {"scorer": "process_reward"}},
        "asked": {"name": "self_evaluation", "prompt": " + 3 =", "right": " 3", "wrong": " 4"},
    }
    methods = [{"name": name, "search": "sampling", "scorer": name, "sizes": [1, 2]} for name in scorers]
    few: dict[str, Any] = {"problems": {"test": 2}, "seeds": [0], "judge_steps": False}
    made = comparison(methods=methods, scorers={name: known[name] for name in scorers}, **few, **changes)
    return run_comparison(made, tmp_path / "-".join(scorers))


def test_a_scorer_costs_what_it_costs_alone_whatever_others_are_compared(tmp_path: Path) -> None:
    alone = {name: method(samples_of_two(tmp_path, name), name)["points"] for name in ("reward", "moved", "asked")}
    for names in (("reward", "moved", "asked"), ("asked", "moved", "reward")):
        report = samples_of_two(tmp_path, *names)
        for name in names:
            found = method(report, name)["points"]
            assert [point["spending"] for point in found] == [point["spending"] for point in alone[name]]
    asked, reward = (alone[name][1]["spending"] for name in ("asked", "reward"))
    assert asked["policy"] == reward["policy"]  # the samples
    assert asked["policy scoring"]["read"] > 0 == asked["policy scoring"]["written"]  # the questions


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_counted_is_counted_anew_where_methods_change(tmp_path: Path, keep: bool) -> None:
    few: dict[str, Any] = {"seeds": [0], "keep_trees": keep}
    voted = {"name": "chosen", "search": "sampling", "scorer": "reward", "choose_by": "majority", "sizes": [1, 4]}
    run_comparison(comparison(methods=[voted], **few, judge_steps=False), tmp_path / "changed")
    changed = [{**voted, "choose_by": "score"}, {**voted, "name": "new", "sizes": [2, 4]}]
    reports = [
        run_comparison(comparison(methods=changed, scorers={"reward": "process_reward"}, **few), tmp_path / folder)
        for folder in ("changed", "fresh")
    ]
    for name in ("chosen", "new"):
        again, fresh = (
            [(point["accuracy"], point["tokens"]) for point in method(report, name)["points"]] for report in reports
        )
        assert again == fresh
    again, fresh = ([(each["name"], each["states"]) for each in report["scorers"]] for report in reports)
    assert again == fresh != []
    assert any((tmp_path / "changed" / "trees").iterdir()) == keep


def test_problems_that_fail_are_told_of_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = comparison(methods=SMALL["methods"][:1], seeds=[0], judge_steps=False, keep_trees=False)
    search = IndependentSampling.__call__

    async def failing(self: Any, tree: Tree, *rest: Any, **options: Any) -> None:
        if tree.problem.id == failed:
            raise ProblemError("the server is away")
        await search(self, tree, *rest, **options)

    failed = made.task.problems("test", 6)[2].id
    with monkeypatch.context() as patch:
        patch.setattr(IndependentSampling, "__call__", failing)
        report = run_comparison(made, tmp_path)
    assert report["problems"] == 5
    assert report["failed"] == {failed: "the server is away"}
    assert "1 problem failed" in (tmp_path / "report.md").read_text()
    again = run_comparison(made, tmp_path)
    assert again["problems"] == 6
    assert not again["failed"]


def test_methods_do_not_share_a_file(tmp_path: Path) -> None:
    made = comparison(methods=[BEAM | {"sizes": [2]}, BEAM | {"name": "Beam 2"}])
    with pytest.raises(GradatimError, match="rename one of them"):
        run_comparison(made, tmp_path)


def test_sampling_heeds_budgets(tmp_path: Path) -> None:
    endless = {"name": "endless", "search": {"name": "sampling", "n": None}, "choose_by": "majority"}
    few: dict[str, Any] = {"problems": {"test": 3}, "seeds": [0]}
    report = run_comparison(comparison(methods=[endless], budgets=[60, 200], **few), tmp_path / "ladder")
    assert [60 < point["tokens"] <= 200 for point in method(report, "endless")["points"]] == [False, True]
    sized = {**endless, "search": "sampling", "sizes": [16]}
    report = run_comparison(comparison(methods=[sized], budget=100, **few), tmp_path / "most")
    assert method(report, "endless")["points"][0]["tokens"] <= 100
