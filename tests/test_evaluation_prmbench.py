"""PRMBench against the authors' own output and by hand, and over its real test files where they are there."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.evaluation.baselines import constant_scores, random_scores
from gradatim.evaluation.benchmarks.prmbench import CLASSES, CORRECT, GROUPS, Prmbench, PrmBenchResult, prmbench
from gradatim.evaluation.step_records import StepRecord
from json_lines import write_lines
from step_solutions import golden, oracle_scores, scores_for

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRADATIM_DATA") or ROOT.parent / "shared" / "data") / "prmbench"
needs_data = pytest.mark.skipif(
    not (DATA / "test_circular.jsonl").is_file(),
    reason="needs prmbench/test_*.jsonl; set GRADATIM_DATA to the folder that holds prmbench/",
)
GOLDEN = golden("prmbench.json")


def row(classification: str, error_steps: list[int], steps: int = 3, idx: str = "q1") -> dict[str, Any]:
    return {
        "idx": idx,
        "classification": classification,
        "original_question": "How many?",
        "modified_question": "How many?",
        "original_process": ["right 1", "right 2"],
        "modified_process": [f"{classification} {number}" for number in range(steps)],
        "error_steps": error_steps,
    }


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: run["name"])
def test_the_authors_code_gives_the_same(run: dict[str, Any], tmp_path: Path) -> None:
    records = Prmbench(data=write_lines(tmp_path / "data.jsonl", GOLDEN["records"])).records()
    scores = [
        [run["constant"]] * len(record.steps) if run["scores"] is None else run["scores"][record.id]
        for record in records
    ]
    result = prmbench(records, scores, GOLDEN["threshold"])
    assert asdict(result.total) == pytest.approx(run["total"], abs=1e-12)
    for name, measures in result.classes.items():
        theirs = {measure: values[name] for measure, values in run["classes"].items()}
        assert asdict(measures) == pytest.approx(theirs, abs=1e-12), name
    table = run["table"]
    assert result.total.score == pytest.approx(table["overall"], abs=1e-12)
    assert {name: result.class_score(name) for name in CLASSES} == pytest.approx(table["classes"], abs=1e-12)
    assert result.group_scores() == pytest.approx(table["groups"], abs=1e-12)


def test_a_number_in_front_of_a_step_is_not_read_by_a_model(tmp_path: Path) -> None:
    numbered = {
        "modified_process": ["1. First, we add.", " step 2. Then 3.5 remain.", "Step 3: so", "3 is it.", "4."],
        "original_process": ["1.We add.", "It is 2. Done."],
    }
    path = write_lines(tmp_path / "data.jsonl", [row("redundency", [2]) | numbered])
    original, modified = Prmbench(data=path).records()
    assert modified.steps == ("First, we add.", "Then 3.5 remain.", "Step 3: so", "3 is it.", "")
    assert original.steps == ("We add.", "It is 2. Done.")


def test_a_score_of_one_kind_of_steps_is_shown_as_missing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [row("circular", []), row("multi_solutions", [])])
    records = Prmbench(data=path).records()
    figures = prmbench(records, [[0.9] * len(record.steps) for record in records]).figures()
    assert figures["PRMScore"] is None
    assert (figures["  circular"], figures["simplicity"], figures["  multi_solutions"]) == (None, None, 100.0)


def test_by_hand(tmp_path: Path) -> None:
    # redundency, wrong step 2 of 3, called right-wrong-wrong: right steps 1 of 2 called right (precision 1, recall 1/2,
    # F1 2/3); wrong steps 1 of 1 (precision 1/2, recall 1, F1 2/3). PRMScore 2/3, first error found.
    # circular, wrong steps 1 and 3, called right-right-wrong: precision 1/2, recall 1, F1 2/3; wrong: precision 1,
    # recall 1/2, F1 2/3. PRMScore 2/3, first error missed.
    # Total: 2 of 3 right steps called right, 2 of 3 wrong steps called wrong; of 3 called right 2 are, of 3 called
    # wrong 2 are: everything is 2/3.
    # The original (2 steps) is called right-wrong, a share of 1/2; redundency's share is 1/3, circular's 2/3: the
    # distances are 1/6 and 1/6.
    path = write_lines(tmp_path / "data.jsonl", [row("redundency", [2]), row("circular", [1, 3])])
    records = Prmbench(data=path).records()
    assert [record.id for record in records] == ["correct_q1", "redundency_q1", "circular_q1"]
    scores = [[0.9, 0.5], [0.6, 0.5, 0.1], [0.6, 0.6, 0.2]]  # 0.5 is not above the threshold: called wrong
    result = prmbench(records, scores)
    assert result.class_score("redundency") == pytest.approx(2 / 3)
    assert result.class_score("circular") == pytest.approx(2 / 3)
    assert result.classes["redundency"].f1 == pytest.approx(2 / 3)
    assert result.group_scores() == {"simplicity": pytest.approx(2 / 3)}
    total = result.total
    assert total.score == pytest.approx(2 / 3)
    assert total.total_step_acc == total.correct_step_acc == total.wrong_step_acc == pytest.approx(2 / 3)
    assert total.first_error_acc == 0.5
    assert total.similarity == pytest.approx(1 / 6)
    assert result.classes[CORRECT].correct_step_acc == 0.5
    assert result.classes[CORRECT].similarity == -1
    assert result.figures()["  redundency"] == pytest.approx(200 / 3)


def test_what_the_authors_code_passes_over(tmp_path: Path) -> None:
    rows = [
        row("deception", [2, 9]),  # beyond the last step
        row("deception", [1]),  # the same idx again
        row("circular", [1], idx="circular_q1"),  # as on the hub
        row("redundency", [1], idx="redundency_q1"),
    ]
    records = {record.id: record for record in Prmbench(data=write_lines(tmp_path / "data.jsonl", rows)).records()}
    assert set(records) == {"deception_q1", "circular_q1", "correct_q1", "redundency_q1"}
    assert records["deception_q1"].labels == (True, False, True)
    assert {record.question for record in records.values()} == {"q1"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"classification": "lies"},
            r"line 1 of '.*data\.jsonl' \(q1\) has the classification 'lies'; the benchmark has re",
        ),
        ({"error_steps": [0]}, "error step 0, but steps are counted from 1"),
        ({"error_steps": [1.5]}, "a list of whole numbers in the field 'error_steps'"),
        ({"error_steps": [True]}, "a list of whole numbers in the field 'error_steps'"),
        ({"modified_process": []}, "nothing in the field 'modified_process'"),
        ({"original_process": "text"}, "a list of texts in the field 'original_process'"),
        ({"modified_question": None}, "no text in the field 'modified_question'"),
    ],
)
def test_bad_records_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [row("redundency", [1]) | change])
    with pytest.raises(GradatimError, match=sentence):
        Prmbench(data=path).records()


@st.composite
def judged_solutions(draw: st.DrawFn) -> tuple[list[StepRecord], list[list[float]]]:
    records = []
    for number in range(draw(st.integers(1, 6))):
        group = draw(st.sampled_from([CORRECT, *CLASSES]))
        clean = group in (CORRECT, "multi_solutions")
        labels = draw(st.lists(st.just(True) if clean else st.booleans(), min_size=1, max_size=4))
        question = str(number % 2)
        records.append(
            StepRecord(f"{group}_{number}", "p", tuple("abcd"[: len(labels)]), tuple(labels), group, question)
        )
    return records, scores_for(draw, records)


@given(judged_solutions())
def test_figures_lie_in_their_range_and_the_oracle_has_all(
    judged: tuple[list[StepRecord], list[list[float]]],
) -> None:
    records, scores = judged
    result = prmbench(records, scores)
    for measures in [result.total, *result.classes.values()]:
        assert all(value == -1 or -1e-12 <= value <= 1 for value in asdict(measures).values())
        assert 0 <= measures.score <= 1
    assert all(0 <= score <= 1 for score in result.group_scores().values())
    perfect = prmbench(records, oracle_scores(records))
    assert perfect.total.total_step_acc == (-1 if all(record.group == CORRECT for record in records) else 1)
    for name, measures in perfect.classes.items():
        labels = {label for record in records if record.group == name for label in record.labels}
        assert measures.total_step_acc == 1
        if labels == {True, False}:
            assert measures.score == 1


@pytest.fixture(scope="module")
def real_records() -> list[StepRecord]:
    return Prmbench(data=(str(DATA / "test_*.jsonl"), str(DATA / "multi_solutions.jsonl"))).records()


@needs_data
def test_a_perfect_scorer_has_everything_on_the_real_files(real_records: list[StepRecord]) -> None:
    result = prmbench(real_records, oracle_scores(real_records))
    assert {record.group for record in real_records} == {CORRECT, *CLASSES}
    assert result.total.score == 1
    assert result.group_scores() == dict.fromkeys(GROUPS, 1.0)
    assert result.total.first_error_acc == 1


@needs_data
def test_baselines_on_the_real_files(real_records: list[StepRecord]) -> None:
    # Random verdicts find half of the right and half of the wrong steps; wrong ones are rarer, so their F1 is lower.
    chance: PrmBenchResult = prmbench(real_records, random_scores(real_records, seed=0))
    assert chance.total.correct_step_acc == pytest.approx(0.5, abs=0.03)
    assert chance.total.wrong_step_acc == pytest.approx(0.5, abs=0.03)
    assert 0.3 < chance.total.score < 0.5
    trusting = prmbench(real_records, constant_scores(real_records))
    assert trusting.total.correct_step_acc == 1
    assert trusting.total.wrong_step_acc == trusting.total.first_error_acc == 0
    assert trusting.total.similarity == 0
