"""MPBench's three uses and best-of-n selection, by hand and against naive computations; the baselines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.evaluation.baselines import constant_scores, length_scores, random_scores
from gradatim.evaluation.benchmarks.best_of_n import BestOfN, best_of_n_selection
from gradatim.evaluation.benchmarks.mp_bench import MpBench, ProcessSearch, mp_bench
from gradatim.evaluation.step_records import StepRecord
from json_lines import write_lines
from step_solutions import oracle_scores, scores_for

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRADATIM_DATA") or ROOT.parent / "shared" / "data") / "gsm8k"
needs_data = pytest.mark.skipif(
    not (DATA / "model_solutions.jsonl").is_file(),
    reason="needs gsm8k/model_solutions.jsonl; set GRADATIM_DATA to the folder that holds gsm8k/",
)

JUDGED = {"question": "How many?", "steps": ["a", "b"], "labels": [True, False]}
SAMPLED = {
    "question": "How many?",
    "solutions": [
        {"steps": ["a", "b"], "correct": True, "answer": "1"},
        {"solution": "a\nc\n", "correct": False, "answer": "2"},
        {"steps": ["d"], "correct": False, "answer": "2"},
    ],
}
SEARCHED = {"question": "How many?", "steps": ["a"], "candidates": ["b", "c"], "labels": [False, True]}


def read(folder: Path, *rows: dict[str, Any]) -> list[StepRecord]:
    return MpBench(data=write_lines(folder / "data.jsonl", rows)).records()


def test_step_correctness_by_hand(tmp_path: Path) -> None:
    # Threshold 0.5. First solution, right-wrong, called right-wrong: its first error is found. Second, all right, but
    # called right-wrong: an error is reported. So 1 of 2. Right steps: 2 of 3 called right, and nothing else is:
    # F1 = 2 * 1 * 2/3 / (5/3) = 4/5. Wrong steps: 1 of 1 called wrong, but so is another: F1 = 2 * 1/2 * 1 / (3/2)
    # = 2/3. Their mean is 11/15.
    records = read(tmp_path, JUDGED, JUDGED | {"labels": [True, True]})
    result = mp_bench(records, [[0.5, 0.4], [0.9, 0.1]]).step_correctness
    assert result is not None
    assert result.first_error == 0.5
    assert result.all_errors == pytest.approx(11 / 15)
    assert result.average == pytest.approx((1 / 2 + 11 / 15) / 2)


def test_a_kind_of_step_that_never_occurs_has_no_f1(tmp_path: Path) -> None:
    records = read(tmp_path, JUDGED | {"labels": [True, True]})
    perfect = mp_bench(records, [[0.9, 0.9]]).step_correctness
    wary = mp_bench(records, [[0.9, 0.1]]).step_correctness
    assert perfect is not None
    assert wary is not None
    assert perfect.all_errors == 1.0
    assert wary.all_errors == pytest.approx((2 / 3 + 0) / 2)


def test_answer_aggregation_by_hand(tmp_path: Path) -> None:
    # Last scores .6 (right, answer 1), .5 and .4 (wrong, answer 2): the best is right, but answer 2 has .9 votes.
    records = read(tmp_path, SAMPLED)
    assert [record.steps for record in records] == [("a", "b"), ("a", "c"), ("d",)]
    scores = [[0.1, 0.6], [0.9, 0.5], [0.4]]
    result = mp_bench(records, scores).answer_aggregation
    assert result is not None
    assert (result.best_of_n, result.majority, result.average) == (1.0, 0.0, 0.5)
    # By the smallest step score .1, .5 and .4, the best is wrong, too.
    by_smallest = mp_bench(records, scores, aggregate="min").answer_aggregation
    assert by_smallest is not None
    assert (by_smallest.best_of_n, by_smallest.majority) == (0.0, 0.0)
    with pytest.raises(GradatimError, match="scores of 0 or more"):
        mp_bench(records, [[0.1, -0.6], [0.9, 0.5], [0.4]])


def test_process_search_by_hand(tmp_path: Path) -> None:
    # Four questions with one right of two candidates, three chosen rightly: TP 3, FP 1, FN 1, TN 3.
    # F1 = 6/8; MCC = (9 - 1) / sqrt(4 * 4 * 4 * 4) = 1/2.
    records = read(tmp_path, SEARCHED, SEARCHED, SEARCHED, SEARCHED | {"steps": []})
    assert [record.steps for record in records[-4:]] == [("a", "b"), ("a", "c"), ("b",), ("c",)]
    assert [record.labels for record in records[-4:]] == [(None, False), (None, True), (False,), (True,)]
    assert not any(record.finished for record in records)
    right, wrong = [[0.9, 0.1], [0.1, 0.2]], [[0.2], [0.1]]  # only the candidate's own score counts
    assert mp_bench(records, [*right, *right, *right, *wrong]).process_search == ProcessSearch(0.75, 0.5)
    # Equal scores are drawn by lot: half of the choices are right.
    tie = mp_bench(records, constant_scores(records))
    assert tie.process_search == ProcessSearch(0.5, 0.0)
    assert tie.step_correctness is None
    assert tie.overall == 0.25


def test_the_overall_score_is_the_mean_of_the_uses(tmp_path: Path) -> None:
    records = read(tmp_path, JUDGED, SAMPLED, SEARCHED)
    perfect = mp_bench(records, [[1, 0], [1, 1], [1, 0], [0], [1, 0], [1, 1]])
    assert perfect.overall == 1.0
    assert set(perfect.figures().values()) == {100.0, 0.5}  # 0.5: the threshold
    lazy = mp_bench(records, constant_scores(records))
    # Nothing is ever called wrong: the first error is missed; F1 is 2/3 of right steps and 0 of wrong ones. The best of
    # three equals is drawn by lot, 1/3; the vote is 2 to 1 for the wrong answer. The search is a matter of chance.
    assert lazy.step_correctness is not None
    assert lazy.answer_aggregation is not None
    assert lazy.step_correctness.first_error == 0.0
    assert lazy.step_correctness.all_errors == pytest.approx(1 / 3)
    assert lazy.answer_aggregation.best_of_n == pytest.approx(1 / 3)
    assert lazy.answer_aggregation.majority == 0.0
    assert lazy.overall == pytest.approx((1 / 6 + 1 / 6 + 1 / 4) / 3)


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[StepRecord], list[list[float]]]:
    records = []
    for question in range(draw(st.integers(1, 5))):
        labels = draw(st.lists(st.booleans(), min_size=1, max_size=4).filter(any))
        records += [
            StepRecord(f"{question}/{i}", "p", ("s",), (label,), "reasoning process search", str(question))
            for i, label in enumerate(labels)
        ]
    return records, scores_for(draw, records)


@given(searches())
def test_search_agrees_with_correlation_over_all_draws(searched: tuple[list[StepRecord], list[list[float]]]) -> None:
    """Matthews' correlation is Pearson's of the two binary rows; with ties, weights stand for the draws."""
    records, scores = searched
    result = mp_bench(records, scores).process_search
    assert result is not None
    truth = np.array([record.labels[0] is True for record in records], dtype=float)
    chosen = np.zeros(len(records))
    for question in {record.question for record in records}:
        members = [index for index, record in enumerate(records) if record.question == question]
        best = max(scores[index][0] for index in members)
        tied = [index for index in members if scores[index][0] == best]
        chosen[tied] = 1 / len(tied)
    # F1 = 2 TP / (called right + right)
    assert result.f1 == pytest.approx(2 * float(chosen @ truth) / (chosen.sum() + truth.sum()))
    assert 0 <= result.f1 <= 1
    assert -1 - 1e-12 <= result.mcc <= 1 + 1e-12
    if set(chosen) == {0.0, 1.0} and len(set(truth)) == 2:
        assert result.mcc == pytest.approx(float(np.corrcoef(truth, chosen)[0, 1]))
    perfect = mp_bench(records, oracle_scores(records)).process_search
    assert perfect is not None
    if truth.sum() == len({record.question for record in records}):
        assert perfect.f1 == 1
        assert perfect.mcc == (1 if len(set(truth)) == 2 else 0)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            JUDGED | {"labels": [True]},
            r"line 1 of '.*data\.jsonl' does not have one label for each of its steps: 1 for 2",
        ),
        (JUDGED | {"labels": [1, 0]}, "a list of true and false in the field 'labels'"),
        ({"question": "q", "labels": []}, "has no field 'steps'"),
        (SEARCHED | {"labels": [False, False]}, "no right candidate"),
        (SEARCHED | {"labels": [True]}, "one label for each of its candidates: 1 for 2"),
        ({"question": "q", "solutions": [{"steps": ["a"]}]}, r"solutions 1, has no field 'correct'"),
        ({"question": "q", "solutions": []}, "nothing in the field 'solutions'"),
    ],
)
def test_bad_records_are_refused(row: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match=sentence):
        read(tmp_path, row)


def test_best_of_n_by_hand(tmp_path: Path) -> None:
    # First question: scores .9 right, .5 wrong, .4 wrong. Best of 1 is 1/3; of 2 the subsets are {.9,.5} right,
    # {.9,.4} right, {.5,.4} wrong: 2/3; of 3 right. Vote: 2 to 1 for the wrong answer; weighted .9 to .9, a tie: 1/2.
    # Second question: one right solution with the lowest of three scores; every answer differs, votes .1 to .2 to .3.
    # Best of 1 is 1/3; of 2 and 3 wrong. Plain vote by lot: 1/3.
    second = {
        "question": "And now?",
        "solutions": [{"steps": ["x"], "correct": number == 1, "answer": str(number)} for number in (1, 2, 3)],
    }
    records = BestOfN(data=write_lines(tmp_path / "data.jsonl", [SAMPLED, second])).records()
    result = best_of_n_selection(records, [[0.0, 0.9], [1.0, 0.5], [0.4], [0.1], [0.2], [0.3]], resamples=50)
    assert {n: estimate.value for n, estimate in result.best_of.items()} == pytest.approx(
        {1: 1 / 3, 2: 1 / 3, 3: 1 / 2}
    )
    assert result.majority is not None
    assert result.weighted_majority is not None
    assert result.majority.value == pytest.approx((0 + 1 / 3) / 2)
    assert result.weighted_majority.value == pytest.approx((1 / 2 + 0) / 2)
    assert result.any_right.value == 1.0
    json.dumps(result.to_json())


def test_without_answers_there_is_no_vote(tmp_path: Path) -> None:
    row = {"question": "q", "solutions": [{"steps": ["a"], "correct": True}, {"steps": ["b"], "correct": False}]}
    records = BestOfN(data=write_lines(tmp_path / "data.jsonl", [row])).records()
    result = best_of_n_selection(records, [[0.2], [0.1]], resamples=10)
    assert result.majority is None
    assert result.figures()["score-weighted majority"] is None
    assert result.best_of[2].value == 1.0
    with pytest.raises(GradatimError, match="has no sampled solutions"):
        BestOfN(data=write_lines(tmp_path / "data.jsonl", [{"question": "q", "answer": "a"}])).records()


def test_baselines_by_hand() -> None:
    def record(*steps: str) -> StepRecord:
        return StepRecord("r", "p", steps, (True,) * len(steps), "g", "q")

    records = [record("a", "bbb"), record("cc", "dd")]  # lengths 1, 3, 2, 2
    assert length_scores(records) == [[1.0, 0.25], [0.75, 0.75]]
    assert constant_scores(records) == [[1.0, 1.0], [1.0, 1.0]]
    assert random_scores(records, 1) == random_scores(records, 1) != random_scores(records, 2)
    assert all(0 <= score < 1 for values in random_scores(records) for score in values)


@needs_data
def test_four_models_solutions_are_a_best_of_4() -> None:
    records = BestOfN(data=str(DATA / "model_solutions.jsonl")).records()
    assert len(records) == 4 * 1319
    knowing = best_of_n_selection(records, [[float(bool(r.correct))] * len(r.steps) for r in records], resamples=50)
    assert knowing.best_of[4].value == knowing.any_right.value
    assert knowing.best_of[1].value == pytest.approx(np.mean([record.correct is True for record in records]))
    blind = best_of_n_selection(records, constant_scores(records), resamples=50)
    assert {n: each.value for n, each in blind.best_of.items()} == pytest.approx(
        dict.fromkeys((1, 2, 4), knowing.best_of[1].value)
    )
    assert blind.majority is not None
    assert blind.weighted_majority is not None
    assert blind.majority.value == pytest.approx(blind.weighted_majority.value)
    answered = [record.answer is not None for record in records if record.correct]
    assert np.mean(answered) > 0.99
