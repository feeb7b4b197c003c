"""Calibration: the fits against brute force and a gradient of zero, what is left out, and the files."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.evaluation.labelled_scores import labelled_scores
from gradatim.part import make
from gradatim.scorers.calibration import (
    Isotonic,
    Platt,
    brier,
    cross_fitted,
    fit,
    fit_isotonic,
    fit_platt,
    read_calibration,
    smoothed,
)
from gradatim.store import TreeStore
from gradatim.tasks.base import grade
from gradatim.tree import Tree
from gradatim.values.backup import back_up_values
from scripted_countdown import TASK, arbitrary_value, new_tree, oracle_value, random_policy
from small_runs import small_content
from test_scorers_wrappers import chain as chain_of
from test_scorers_wrappers import given_part, scored

LABELS = st.sampled_from([0.0, 0.25, 0.5, 1.0])
PAIRS = st.lists(st.tuples(st.integers(0, 9).map(lambda n: n / 9), LABELS), min_size=1, max_size=7)


def monotone_by_brute_force(scores: list[float], labels: list[float]) -> dict[float, float]:
    """The monotone function of the least squared error: of all divisions of the scores into runs that have their
    means as values, the best one whose values ascend."""
    points = sorted(set(scores))
    of = {point: [y for x, y in zip(scores, labels, strict=True) if x == point] for point in points}
    best: tuple[float, dict[float, float]] = (math.inf, {})
    for count in range(len(points)):
        for cuts in combinations(range(1, len(points)), count):
            runs = [points[start:end] for start, end in pairwise((0, *cuts, len(points)))]
            means = [float(np.mean([y for point in run for y in of[point]])) for run in runs]
            if any(left > right + 1e-12 for left, right in pairwise(means)):
                continue
            value = {point: mean for run, mean in zip(runs, means, strict=True) for point in run}
            error = sum((value[x] - y) ** 2 for x, y in zip(scores, labels, strict=True))
            best = min(best, (error, value), key=lambda found: found[0])
    return best[1]


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_isotonic_regression_is_the_best_monotone_function(pairs: list[tuple[float, float]]) -> None:
    scores, labels = ([pair[side] for pair in pairs] for side in (0, 1))
    curve = fit_isotonic(np.array(scores), np.array(labels))
    for point, value in monotone_by_brute_force(scores, labels).items():
        assert curve(point) == pytest.approx(value, abs=1e-9)
    assert list(curve.values) == sorted(curve.values)
    outside = [curve(-5.0), *map(curve, np.linspace(-0.1, 1.1, 50)), curve(5.0)]
    assert all(left <= right + 1e-12 for left, right in pairwise(outside))


def test_a_monotone_curve_is_straight_between_its_points() -> None:
    curve = Isotonic((0.2, 0.4, 0.8), (0.0, 0.5, 0.7))
    assert [curve(x) for x in (0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9)] == pytest.approx([0, 0, 0.25, 0.5, 0.6, 0.7, 0.7])


@given(PAIRS, st.sampled_from(["scores", "logits"]))
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_platts_loss_is_zero(pairs: list[tuple[float, float]], on: Any) -> None:
    scores, labels = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    curve = fit_platt(scores, labels, on)
    missed = np.array([curve(score) for score in scores]) - smoothed(labels)
    x = scores if on == "scores" else np.log(scores.clip(1e-6, 1 - 1e-6) / (1 - scores).clip(1e-6, 1 - 1e-6))
    assert abs(missed.mean()) < 1e-6
    assert abs((missed * x).mean()) < 1e-5


def test_platts_labels_are_those_of_his_paper() -> None:
    assert smoothed(np.array([1.0, 1.0, 0.0])) == pytest.approx([3 / 4, 3 / 4, 1 / 3])


def test_scores_that_divide_right_from_wrong_have_a_finite_curve() -> None:
    curve = fit([-4.0, -3.0, 5.0, 9.0], [0, 0, 1, 1], "platt").curve
    assert isinstance(curve, Platt)
    assert curve.on == "scores"
    assert 0 < curve.slope < 100
    assert curve(-4.0) < 0.5 < curve(9.0)


def test_probabilities_are_read_as_logits_and_a_wrong_temperature_is_found() -> None:
    source = np.random.default_rng(0)
    logits = source.normal(size=4000)
    labels = (source.random(4000) < 1 / (1 + np.exp(-logits))).astype(float)
    curve = fit(list(1 / (1 + np.exp(-3 * logits))), list(labels), "platt").curve
    assert isinstance(curve, Platt)
    assert curve.on == "logits"
    assert curve.slope == pytest.approx(1 / 3, rel=0.1)
    assert curve.intercept == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_pairs_that_lack_something_are_counted_and_left_out(method: Any) -> None:
    scores = [0.1, None, 0.9, math.nan, 0.5, math.inf]
    labels = [0.0, 1.0, 1.0, 1.0, None, 0.0]
    found = fit(scores, labels, method)
    assert (found.pairs, found.left_out) == (2, 4)
    assert found.curve == fit([0.1, 0.9], [0.0, 1.0], method).curve


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([0.1, 0.2], [1.0, 1.0], "there is nothing to calibrate: all 2 labels are 1"),
        ([None, math.nan], [1.0, 0.0], r"no score has a label \(2 pairs left out\)"),
        ([0.1, 0.2], [0.0, 2.0], "labels lie between 0 and 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(scores: Any, labels: Any, said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        fit(scores, labels)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_calibration_is_kept_in_a_file_that_a_scorer_names(method: Any, tmp_path: Path) -> None:
    found = fit([0.1, 0.3, 0.6, 0.9], [0, 1, 0, 1], method, of="some trees")
    found.write(tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == found
    part = {"calibrated": {"scorer": given_part("a", x=0.7), "calibration": str(tmp_path / "c.json")}}
    nodes = chain_of("x")
    assert scored(make("scorers", part), nodes)[0] == [found(0.7)]
    assert sorted(nodes[0].scores) == ["a", "calibrated"]


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "{}", '{"method": "platt"}', '{"method": "other", "curve": {}, "pairs": 1, "left_out": 0, "of": ""}',
        '{"method": "isotonic", "curve": {"scores": [1, 0], "values": [0, 1]}, "pairs": 1, "left_out": 0, "of": ""}',
        '{"method": "platt", "curve": {"slope": NaN, "intercept": 0}, "pairs": 1, "left_out": 0, "of": ""}',
        '{"method": "platt", "curve": {"slope": 1, "intercept": 0, "on": "odds"}, "pairs": 1, "left_out": 0, "of": ""}',
        '{"method": "isotonic", "curve": {"scores": [0, 1], "values": [0, NaN]}, "pairs": 1, "left_out": 0, "of": ""}',
        '{"method": "isotonic", "curve": {"scores": [0, 1], "values": [0, 2]}, "pairs": 1, "left_out": 0, "of": ""}',
    ],
)  # fmt: skip
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(GradatimError, match="is no calibration; make one with 'gradatim calibrate'"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(GradatimError, match="cannot be read"):
        read_calibration(tmp_path / "other.json")


def searched_tree(seed: int) -> Tree:
    """Sampled solutions with scores that mean nothing and with values, of which some steps lack either."""
    tree = new_tree(seed=seed)
    asyncio.run(random_policy(0.2).extend([tree.root], 8, steps=None))
    grade(tree, TASK)
    back_up_values(tree)
    for node in tree.nodes[1:]:
        node.scores["guess"] = (arbitrary_value(node) + oracle_value(node)) / 2
    del tree.nodes[1].scores["guess"]
    return tree


def test_labels_are_values_verdicts_or_the_truth() -> None:
    tree = searched_tree(0)
    nodes = tree.nodes[1:]
    for label, expected in {
        "value": [node.scores["value"] for node in nodes],
        "exact": [oracle_value(node) for node in nodes],
        "correct": [float(bool(node.correct)) if node.finished else None for node in nodes],
    }.items():
        scores, labels, _ = labelled_scores([tree], "guess", label, TASK)
        kept = [node for node, each in zip(nodes, expected, strict=True) if each is not None or "guess" in node.scores]
        assert scores == [node.scores.get("guess") for node in kept]
        assert labels == [expected[nodes.index(node)] for node in kept]
    for scorer, label, said in (("other", "value", "no step of these trees has 'other'"), ("guess", "no", "'no'")):
        with pytest.raises(GradatimError, match=said):
            labelled_scores([tree], scorer, label)
    with pytest.raises(GradatimError, match="knows no exact truth"):
        labelled_scores([tree], "guess", "exact", object())


def stored(path: Path) -> list[Tree]:
    """Trees of four problems, in a file."""
    trees = []
    with TreeStore(path) as store:
        for number in range(4):
            content = searched_tree(number).to_json()
            content["problem"]["id"] = str(number)
            trees.append(Tree.from_json(content))
            store.append(trees[-1])
    return trees


def call(source: Path, output: Path, *more: str) -> Any:
    words = ["calibrate", str(source), "--scorer", "guess", "--output", str(output)]
    return CliRunner().invoke(app, [*words, *more])


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_the_command_writes_a_calibration_and_says_what_it_found(method: Any, tmp_path: Path) -> None:
    file, trees = tmp_path / "c.json", stored(tmp_path / "trees.jsonl")
    result = call(tmp_path / "trees.jsonl", file, "--method", method)
    assert result.exit_code == 0, result.output
    found = read_calibration(file)
    scores, labels, _ = labelled_scores(trees, "guess", "value")
    assert found == fit(scores, labels, method, of=found.of)
    told = f"fitted to {found.pairs:,} scores with labels, {found.left_out:,} left out"
    assert told in result.output
    assert "by what was fitted to the other half" in result.output
    assert json.loads(file.read_text())["method"] == method


def test_the_command_asks_the_task_of_a_run_and_warns_of_test_problems(tmp_path: Path) -> None:
    file, run = tmp_path / "c.json", tmp_path / "run"
    (run / "trees").mkdir(parents=True)
    for name in ("round-1", "evaluate-base"):
        trees = stored(run / "trees" / f"{name}.jsonl")
    content = small_content(judge=None, objective=None, task={"name": "countdown", "numbers": 3})
    (run / "recipe.yaml").write_text(yaml.safe_dump(content))
    result = call(run, file, "--value", "exact")
    assert result.exit_code == 0, result.output
    scores, labels, _ = labelled_scores(trees, "guess", "exact", TASK)
    assert read_calibration(file).curve == fit(scores, labels).curve
    with pytest.warns(UserWarning, match="has trees of test problems"):
        assert call(run, file, "--trees", "evaluate-base").exit_code == 0


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    trees, file = tmp_path / "trees.jsonl", tmp_path / "c.json"
    stored(trees)
    for words, said in {
        ("--method", "other"): "--method 'other' is not known",
        ("--on", "other"): "--on 'other' is not known",
        ("--value", "exact"): "is no run folder, so that its task is not known",
    }.items():
        assert said in " ".join(call(trees, file, *words).output.split())
    assert not file.exists()


def test_what_is_measured_was_not_fitted_to() -> None:
    scores, labels, groups = [0.1, 0.9, 0.1, 0.9, None, 0.5], [0.0, 1.0, 1.0, 0.0, 1.0, None], [0, 0, 1, 1, 1, 0]
    assert cross_fitted(scores, labels, groups, "isotonic") == pytest.approx([0.5, 0.5, 0.0, 1.0, None, 0.5])
    assert brier([0.5, None, 1.0], [1.0, 1.0, None]) == 0.25
    with pytest.raises(GradatimError, match="nothing to calibrate"):
        cross_fitted(scores, labels, [0] * 6)


@given(PAIRS)
def test_calibration_lowers_the_squared_error_on_what_it_was_fitted_to(pairs: list[tuple[float, float]]) -> None:
    scores, labels = ([pair[side] for pair in pairs] for side in (0, 1))
    curve = fit_isotonic(np.array(scores), np.array(labels))
    assert brier([curve(score) for score in scores], labels) <= brier(scores, labels) + 1e-12
