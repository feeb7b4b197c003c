"""Solutions whose steps are labelled: by hand, and how benchmarks put records to a model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.evaluation.benchmarks.best_of_n import BestOfN
from gradatim.evaluation.benchmarks.labelled_steps import LabelledSteps, labelled_steps
from gradatim.evaluation.record_scoring import score_records
from gradatim.evaluation.step_records import StepRecord, record_trees
from json_lines import write_lines
from step_solutions import TextScorer, oracle_scores, scores_for


def solution(steps: str, labels: list[bool | None], kind: str, question: str = "Q") -> StepRecord:
    return StepRecord(
        f"{question} {steps}", question, tuple(steps), tuple(labels), "labelled steps", question, author=kind
    )


def test_by_hand() -> None:
    # Threshold 0.5. Called wrong: c, which is, and twice p, which is not. Wrong and called right: x and y.
    # The first wrong step against the right one at its place: c .1 < b .6 wins, y .7 ties with z; x is its solution's
    # last step and b is not, so that they are no pair.
    # First errors: that of acd is found, ax's is missed, and of pqy p is called first. abd is called clean, pqz is not.
    # The lowest labelled step is the first error of acd alone.
    records = [
        solution("abd", [True, True, True], "reference"), solution("acd", [True, False, None], "slip"),
        solution("ax", [True, False], "stop"), solution("pqz", [True, None, True], "reference", "R"),
        solution("pqy", [True, None, False], "slip", "R"),
    ]  # fmt: skip
    scores = [[0.8, 0.6, 0.9], [0.8, 0.1, 0.0], [0.9, 0.95], [0.4, 0.0, 0.7], [0.4, 0.0, 0.7]]
    result = labelled_steps(records, scores, 0.5)
    assert (result.solutions, result.steps, result.wrong_steps) == (5, 11, 3)
    assert (result.precision, result.recall, result.f1) == (1 / 3, 1 / 3, 1 / 3)
    assert result.pairs == {"all": 2, "slip": 2}
    assert result.siblings["all"].value == 0.75
    assert (result.first_error.error_accuracy, result.first_error.correct_accuracy) == (1 / 3, 1 / 2)
    assert result.lowest_is_first_error is not None
    assert result.lowest_is_first_error.value == pytest.approx(1 / 3)
    assert result.lowest_by_chance == 0.5
    assert result.f1_of_calling_all_wrong == pytest.approx(2 * 3 / 14)
    right, wrong = [0.8, 0.6, 0.9, 0.8, 0.9, 0.4, 0.7, 0.4], [0.1, 0.95, 0.7]
    wins = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong]
    assert result.auc["all"] is not None
    assert result.auc["all"].value == pytest.approx(sum(wins) / len(wins))
    assert result.auc["reference"] is None


@given(st.data())
def test_the_oracle_has_all(data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=6))
    records = [solution("abcd"[: len(part)], list(part), "any", str(place % 3)) for place, part in enumerate(labels)]
    perfect = labelled_steps(records, oracle_scores(records), 0.5)
    wrong = sum(part.count(False) for part in labels)
    assert perfect.f1 == (1.0 if wrong else 0.0)
    assert perfect.auc["all"] is None or perfect.auc["all"].value == 1.0
    assert all(share.value == 1.0 for share in perfect.siblings.values())
    result = labelled_steps(records, scores_for(data.draw, records), 0.5)
    assert all(value is None or 0 <= value <= 100 for name, value in result.figures().items() if name != "threshold")


def test_the_threshold_parts_first_errors_in_the_validation_data(tmp_path: Path) -> None:
    rows = [{"question": "Q", "steps": ["a", "b"], "labels": [True, True]}] * 20
    rows += [{"question": "Q", "steps": ["a", "c"], "labels": [True, False]}] * 20
    path = write_lines(tmp_path / "rows.jsonl", rows)
    benchmark = LabelledSteps(data=path, validation=path, threshold="auto")
    scores = [[0.9, 0.8 + i / 1000] for i in range(20)] + [[0.9, 0.5 + i / 1000] for i in range(20)]
    result: Any = benchmark.measure(benchmark.records(), scores * 2)
    assert 0.519 < result.threshold <= 0.8
    assert (result.solutions, result.f1) == (40, 1.0)


def test_authors_are_compared_with_the_choice(tmp_path: Path) -> None:
    solutions = [{"steps": ["a"], "correct": True, "author": "x"}, {"steps": ["b"], "correct": False, "author": "y"}]
    path = write_lines(tmp_path / "rows.jsonl", [{"question": str(n), "solutions": solutions} for n in range(4)])
    benchmark = BestOfN(data=path)
    result: Any = benchmark.measure(benchmark.records(), [[0.9], [0.1]] * 3 + [[0.2], [0.3]])
    assert {name: estimate.value for name, estimate in result.authors.items()} == {"x": 1.0, "y": 0.0}
    assert {name: estimate.value for name, estimate in result.differences.items()} == {
        "best of 2 minus one by lot": 0.25, "best of 2 minus x": -0.25, "best of 2 minus y": 0.75,
    }  # fmt: skip
    assert result.outcome_auc["all"].value == pytest.approx(15 / 16)
    assert result.outcome_auc["x"] is None


def test_how_a_record_is_put_to_a_model(tmp_path: Path) -> None:
    rows = [{"question": "Q?", "steps": ["a\n\n b", "c "], "labels": [True, False]}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    plain, put = (
        LabelledSteps(data=path),
        LabelledSteps(data=path, prompt="Question: {question}\nAnswer:\n", lines=True),
    )
    trees = [next(iter(record_trees(enumerate(each.records())))).tree for each in (plain, put)]
    assert [tree.problem.prompt for tree in trees] == ["Q?\n", "Question: Q?\nAnswer:\n"]
    assert {tree.problem.data["question"] for tree in trees} == {"Q?"}
    assert [[node.step.text for node in tree.nodes[1:]] for tree in trees] == [["a\n\n b\n", "c "], ["a b\n", "c\n"]]
    assert [tree.nodes[-1].finished for tree in trees] == [True, False]
    assert plain.records()[0].digest != put.records()[0].digest
    assert asyncio.run(score_records(put.records(), TextScorer(lambda question, text: 0.5))) == [[0.5, 0.5]]
