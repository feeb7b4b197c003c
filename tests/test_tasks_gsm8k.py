"""The GSM8K task: loading, steps, answers, arithmetic, and agreement with recorded verdicts on real solutions."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.hub import Sight
from gradatim.tasks.base import Task
from gradatim.tasks.calculator import Finding, UnreadableError, agrees, check_annotations, evaluate
from gradatim.tasks.gsm8k import Gsm8k, extract_answer
from gradatim.tasks.truth import StepTruth
from gradatim.tree import Problem
from json_lines import write_lines

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRADATIM_DATA") or ROOT.parent / "shared" / "data") / "gsm8k"
needs_data = pytest.mark.skipif(
    not (DATA / "model_solutions.jsonl").is_file(),
    reason="needs gsm8k/model_solutions.jsonl; set GRADATIM_DATA to the folder that holds gsm8k/",
)

REFERENCE = "He sold 48/2 = <<48/2=24>>24 in May.\nTogether 48+24 = <<48+24=72>>72.\n#### 72"


def record(index: int, answer: str = REFERENCE) -> dict[str, str]:
    return {"question": f"How many are {index}?", "answer": answer}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "train.jsonl", [record(index) for index in range(200)])
    write_lines(tmp_path / "test.jsonl", [record(index, f"so\n#### {index}") for index in range(1000, 1020)])
    return tmp_path


# Loading


def test_folder_splits_are_disjoint_complete_and_the_same_every_time(folder: Path) -> None:
    task = Gsm8k(source=str(folder))
    assert isinstance(task, Task)
    train, validation, test = (task.problems(split) for split in ("train", "validation", "test"))
    questions = [{problem.data["question"] for problem in part} for part in (train, validation, test)]
    assert questions[0] | questions[1] == {f"How many are {index}?" for index in range(200)}
    assert not questions[0] & questions[1]
    assert 2 <= len(validation) <= 25
    assert [problem.answer for problem in test] == [str(index) for index in range(1000, 1020)]
    assert task.problems("train", 7) == train[:7] == Gsm8k(source=str(folder)).problems("train", 7)
    assert len({problem.id for problem in train + validation + test}) == 220
    assert Gsm8k(source=str(folder), seed=1).problems("validation") != validation


def test_prompt_and_reference_solution_join_as_they_are(folder: Path) -> None:
    problem = Gsm8k(source=str(folder)).problems("train", 1)[0]
    assert problem.prompt == f"Question: {problem.data['question']}\nAnswer:\n"
    assert problem.data["solution"] == REFERENCE
    task = Gsm8k(source=str(folder), template="Q: {{1}}\nA: #### 1\n\nQ: {question}\nA:")
    assert task.problems("test", 1)[0].prompt == "Q: {{1}}\nA: #### 1\n\nQ: How many are 1000?\nA:"


def test_single_file_is_cut_in_three_and_keeps_equal_questions_together(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [record(index % 150) for index in range(300)])
    task = Gsm8k(source=str(path), validation_fraction=0.1)
    parts = [task.problems(split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 300
    questions = [{problem.data["question"] for problem in part} for part in parts]
    assert list(map(len, questions)) == [120, 15, 15]
    assert all(len(part) % 2 == 0 for part in parts)


def test_hub_layout_is_read_by_load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub = tmp_path / "gsm8k-copy"
    (hub / "main").mkdir(parents=True)
    for split, indices in {"train": range(100), "test": range(100, 110)}.items():
        rows = datasets.Dataset.from_list([record(index) for index in indices])
        rows.to_parquet(str(hub / "main" / f"{split}-00000-of-00001.parquet"))
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n"
        "  - split: test\n    path: main/test-*\n---\n"
    )
    task = Gsm8k(source=str(hub))
    train, validation = task.problems("train"), task.problems("validation")
    assert len(train) + len(validation) == 100
    assert [problem.data["question"] for problem in task.problems("test")] == [
        record(index)["question"] for index in range(100, 110)
    ]
    with pytest.raises(GradatimError, match="configuration 'socratic'"):
        Gsm8k(source=str(hub), config="socratic").problems("train")


def test_missing_hub_id_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(source: str, config: str, *, split: str) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{source}' doesn't exist on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr("gradatim.records.look", lambda *_: Sight())
    with pytest.raises(
        GradatimError, match=r"cannot load the test split of 'nobody/nothing'.*on the Hub; check the id"
    ):
        Gsm8k(source="nobody/nothing").problems("test")


def test_hub_rows_without_the_fields_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"prompt": "a", "answer": "#### 1"}])
    monkeypatch.setattr("gradatim.records.look", lambda *_: Sight())
    with pytest.raises(
        GradatimError, match="row 1 of the train split of 'some/set' has no text in the field 'question'"
    ):
        Gsm8k(source="some/set").problems("train")


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "missing.jsonl"])
def test_a_missing_local_source_is_refused(source: str) -> None:
    with pytest.raises(GradatimError, match="there is no file or folder"):
        Gsm8k(source=source).problems("train", 1)


def test_bad_arguments_are_refused(folder: Path) -> None:
    with pytest.raises(GradatimError, match="no split 'dev'"):
        Gsm8k(source=str(folder)).problems("dev")
    with pytest.raises(GradatimError, match="0 or more"):
        Gsm8k(source=str(folder)).problems("test", -1)
    with pytest.raises(GradatimError, match="exactly once"):
        Gsm8k(source=str(folder), template="Question:")
    with pytest.raises(GradatimError, match="validation_fraction"):
        Gsm8k(source=str(folder), validation_fraction=0.5)
    (folder / "train.jsonl").unlink()
    with pytest.raises(GradatimError, match=r"has no train\.jsonl"):
        Gsm8k(source=str(folder)).problems("validation")


def test_empty_file_and_empty_split_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n\n")
    with pytest.raises(GradatimError, match="it is empty"):
        Gsm8k(source=str(path)).problems("train")
    write_lines(path, [record(1)])
    task = Gsm8k(source=str(path))
    outcomes = []
    for split in ("train", "validation", "test"):
        try:
            outcomes.append(str(len(task.problems(split))))
        except GradatimError as error:
            outcomes.append(str(error).partition(" of ")[2])
    refusal = f"{str(path)!r} has no problems, since it is held out of 1 distinct ones; give a source with at least 3"
    assert sorted(outcomes) == sorted(["1", refusal, refusal])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"question": "a", "answer"', "is not valid JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b'{"question": "a"}', "has neither text nor a number in the field 'answer'"),
        (b'{"question": 3, "answer": "#### 3"}', "has no text in the field 'question'"),
        (b'{"question": "a", "answer": "none"}', "has an answer without a final number"),
    ],
)
def test_bad_line_is_refused_by_number_or_skipped_with_a_warning(folder: Path, line: bytes, complaint: str) -> None:
    path = folder / "test.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], line, *lines[4:8], b"{", *lines[8:]]))
    with pytest.raises(GradatimError, match=rf"line 5 of '.*test\.jsonl' {complaint}"):
        Gsm8k(source=str(folder)).problems("test")
    with pytest.warns(UserWarning, match=r"skipped 2 bad records of '.*test\.jsonl': 5, 10"):
        kept = Gsm8k(source=str(folder), on_bad_line="skip").problems("test")
    assert [problem.answer for problem in kept] == [str(index) for index in range(1000, 1020)]
    assert [problem.id for problem in kept[3:5]] == ["gsm8k/test/4", "gsm8k/test/6"]


def test_file_of_bad_lines_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"\n{"\n')
    with pytest.warns(UserWarning, match="skipped 2"), pytest.raises(GradatimError, match="every record is malformed"):
        Gsm8k(source=str(path), on_bad_line="skip").problems("train")


# Steps


@given(st.text(alphabet=st.sampled_from("ab\n\r \u2028#")) | st.text())
def test_steps_join_to_the_text_and_none_is_empty(text: str) -> None:
    steps = Gsm8k().boundary.split(text)
    assert "".join(steps) == text
    if text.strip():
        assert all(step.strip() for step in steps)
    assert all("\n" not in step.strip() for step in steps)


def test_steps_are_lines() -> None:
    steps = Gsm8k().boundary.split("first\nsecond\n\n#### 3")
    assert steps == ["first\n", "second\n", "\n#### 3"]


# Answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 18", "18"),
        ("####18\n", "18"),
        ("so it is 9\n#### $18.00", "18"),
        ("#### 1,234,567", "1234567"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22125", "-5"),
        ("#### 50%", "50"),
        ("#### 18 dollars and nothing else", "18"),
        ("#### $18/hour", "18"),
        ("#### 0.50", "1/2"),
        ("#### .5", "1/2"),
        ("#### 2/4 of it", "1/2"),
        ("#### 2 1/2", "5/2"),
        ("#### -1 1/2", "-3/2"),
        ("#### **18**", "18"),
        ("#### 1e3", "1000"),
        ("#### 18.", "18"),
        ("#### 1\n#### 2", "2"),
        ("#### 18\n#### Note that 20 was wrong", "18"),
        ("It adds up.\nA: 3,000", "3000"),
        ("#### Step 1: add\nThe answer is $1,050.50.", "2101/2"),
        ("which makes 16 - 4 = 12 eggs", "12"),
        ("$\\boxed{18}$", "18"),
        ("she has <<3*4=12>>12", "12"),
        ("#### 10+2", None),
        ("#### 3-5", None),
        ("#### 8:40", None),
        ("#### 1/0", None),
        ("so it costs 5 * 1", None),
        ("so it costs 5 * 1 = <<5*1", None),
        ("#### " + "9" * 5000, None),
        ("no number", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@given(st.fractions(max_denominator=10**6), st.sampled_from(["#### {}", "#### {} apples", "A: {}", "it is {}"]))
def test_normal_form_is_the_value_and_its_own_normal_form(value: Fraction, form: str) -> None:
    assert extract_answer(form.format(value)) == str(value)


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_all_ways_to_write_a_whole_number_share_one_form(value: int, zeros: int) -> None:
    for written in (f"{value}", f"{value:,}", f"{value:.{zeros}f}", f"{value:,}.{'0' * (zeros + 1)}"):
        assert extract_answer(f"#### {written}") == str(value)


def test_verdict_reasons() -> None:
    task = Gsm8k()
    problem = Problem("p", "Question: ?\nAnswer:\n", "18")
    assert task.check(problem, "#### 18.0").reason == "correct"
    assert task.check(problem, "#### 18.0").reward == 1.0
    wrong = task.check(problem, "#### 19")
    assert (wrong.reward, task.answer(problem, "#### 19"), wrong.reason) == (
        0.0,
        "19",
        "wrong answer: 19 instead of 18",
    )
    assert task.check(problem, "I cannot say").reason.startswith("no final answer")
    assert "no reference answer" in task.check(Problem("p", ""), "#### 18").reason
    assert task.check(Problem("p", "", "$36.00"), "#### 72/2").reward == 1.0


def test_a_next_question_that_the_model_asks_itself_does_not_count() -> None:
    problem = Problem("p", "", "18")
    text = "#### 18\n\nQuestion: Another?\nAnswer:\n#### 20"
    assert Gsm8k().answer(problem, text) == "18"
    assert Gsm8k(template="{question}").answer(problem, text) == "20"


HOSTILE = st.text(alphabet=st.sampled_from("0123456789.,$%-+*/()=<>#A: \n\u0663\u00bde")) | st.text()


@given(HOSTILE)
def test_nothing_raises_on_any_text(text: str) -> None:
    task = Gsm8k()
    for solution in (text, f"#### {text}", f"<<{text}={text}>>{text}", f"<<1/3=0.33>>{text}"):
        verdict = task.check(Problem("p", "", "18"), solution)
        assert verdict.reward in (0.0, 1.0)
        assert (
            (verdict.reward == 1.0)
            == (task.answer(Problem("p", ""), solution) == "18")
            == (verdict.reason == "correct")
        )
        place = task.first_wrong_calculation(solution)
        assert place is None or 0 <= place < len(task.boundary.split(solution))


@pytest.mark.parametrize("piece", ["1,111", "1/", "<<", "-", "#### ", "1 ", "9", " ", "\n ", "A:", ".1", "$ ", "("])
def test_long_hostile_text_takes_no_long_time_and_does_not_raise(piece: str) -> None:
    text = piece * 100_000
    task = Gsm8k()
    started = time.perf_counter()
    assert task.check(Problem("p", "", "18"), text).reward == 0.0
    assert task.check(Problem("p", "", "18"), f"#### {text}").reward == 0.0
    task.first_wrong_calculation(f"<<1+1=2>>{text}<<{text}>><<{text}")
    assert time.perf_counter() - started < 4  # linear time takes tenths of a second, quadratic time far longer


# Arithmetic


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1+2*3", Fraction(7)),
        ("(1+2)*3", Fraction(9)),
        ("8-3-2", Fraction(3)),
        ("8/4/2", Fraction(1)),
        ("-(2-5)*+4", Fraction(12)),
        ("20%*50", Fraction(10)),
        ("50*(100%-20%)", Fraction(40)),
        (".1+.2", Fraction(3, 10)),
        ("$1,000 / 3", Fraction(1000, 3)),
        ("2 \u00d7 3 \u00f7 4", Fraction(3, 2)),
        ("2x3", Fraction(6)),
    ],
)
def test_expressions_are_exact(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", "x+1", "2x", "1+", "(1", "1)", "2(3)", "7%3", "2**3", "7//2", "1 2", "__import__('os')", "(" * 90],
)
def test_what_is_not_plain_arithmetic_is_unreadable(expression: str) -> None:
    with pytest.raises(UnreadableError):
        evaluate(expression)


_numbers = st.integers(0, 999).map(str) | st.decimals(0, 99, places=2).map(str)
_expressions = st.recursive(
    _numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join) | inner.map(lambda expression: f"({expression})")
    ),
    max_leaves=8,
)


@given(_expressions)
def test_expressions_agree_with_python_on_fractions(expression: str) -> None:
    """Python's own parser is a second opinion: every number becomes a Fraction."""
    wrapped = re.sub(r"[0-9.]+", lambda number: f"Fraction('{number[0]}')", expression)
    try:
        expected = eval(wrapped, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate(expression)
        return
    assert evaluate(expression) == expected


@pytest.mark.parametrize(
    ("exact", "written", "whole_may_be_rounded", "expected"),
    [
        (Fraction(1, 3), "0.33", False, True),
        (Fraction(2, 3), "0.67", False, True),
        (Fraction(2, 3), "0.66", False, True),
        (Fraction(2, 3), "0.68", False, False),
        (Fraction(2, 3), "0.65", False, False),
        (Fraction(10, 3), "3", False, False),
        (Fraction(10, 3), "3", True, True),
        (Fraction(10, 3), "4", True, True),
        (Fraction(10, 3), "5", True, False),
        (Fraction(3), "4", True, False),
        (Fraction(2019, 10), "201.89999999999998", False, True),
        (Fraction(1, 10), "0.2", False, False),
        (Fraction(1, 300000), "3.3e-06", False, True),
        (Fraction(1, 300000), "3.5e-06", False, False),
        (Fraction(1), "one", False, False),
    ],
)
def test_tolerance(exact: Fraction, written: str, whole_may_be_rounded: bool, expected: bool) -> None:
    assert agrees(exact, written, whole_may_be_rounded=whole_may_be_rounded) is expected


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("<<48/2=24>>24 clips", Finding.RIGHT),
        ("<<2/2=1.0>>1", Finding.RIGHT),
        ("<<80000*.5=40000.0>>40,000", Finding.RIGHT),
        ("<<350000*5/100=17500.0>>17 500.", Finding.RIGHT),
        ("<<3+2=5>>5 100-meter races", Finding.RIGHT),
        ("<<3/4=3/4>>3/4", Finding.RIGHT),
        ("<<1/4=.25>>25%", Finding.RIGHT),
        ("<<15-20=-5>>5 fewer", Finding.RIGHT),
        ("<<350/15=23.333333333333332>>23 sets", Finding.RIGHT),
        ("<<1500000*2=3000000>>3 million", Finding.RIGHT),
        ("<<2*3=6>>", Finding.RIGHT),
        ("<<2*3=6=6.0>>6", Finding.RIGHT),
        ("<<4*(1/3)=8>>8", Finding.WRONG_RESULT),
        ("<<10/3=3>>3", Finding.WRONG_RESULT),
        ("<<5/0=5>>5", Finding.WRONG_RESULT),
        ("<<50=50-20-60=50>>50", Finding.WRONG_RESULT),
        ("<<93*6=558>>293", Finding.MISCOPIED),
        ("<<216*96=20736>>207360 browns", Finding.MISCOPIED),
        ("<<3/4=0.75>>1/4", Finding.MISCOPIED),
        ("<<x+56=86>>30", Finding.UNREADABLE),
        ("<<2:38-2:15=23>>23", Finding.UNREADABLE),
        ("<<83.3>>83.3", Finding.UNREADABLE),
    ],
)
def test_annotations(text: str, finding: Finding) -> None:
    assert [annotation.finding for annotation in check_annotations(text)] == [finding]


def test_first_error_is_located_in_text_and_steps() -> None:
    task = Gsm8k()
    wrong = REFERENCE.replace("<<48+24=72>>72", "<<48+24=74>>74")
    assert task.first_wrong_calculation(REFERENCE) is None
    assert task.first_wrong_calculation(wrong) == task.first_wrong_calculation(task.boundary.split(wrong)) == 1
    assert task.first_wrong_calculation(wrong.replace("<<48/2=24>>24", "<<48/2=24>>25")) == 0
    assert task.first_wrong_calculation([]) is None


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(-3, 3), st.integers(0, 3))
def test_first_error_finds_every_wrong_sum(left: int, right: int, error: int, place: int) -> None:
    steps = ["It is <<1+1=2>>2.\n"] * 4
    steps[place] = f"So <<{left}+{right}={left + right + error}>>{left + right + error}.\n"
    assert Gsm8k().first_wrong_calculation(steps) == (None if error == 0 else place)


# Real solutions


def _report_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gsm8k_report", ROOT / "scripts" / "gsm8k_verifier_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@needs_data
def test_verifier_agrees_with_every_recorded_verdict() -> None:
    task = Gsm8k()
    disagreements = []
    count = 0
    for line in (DATA / "model_solutions.jsonl").read_text(encoding="utf-8").strip().split("\n"):
        row = json.loads(line)
        problem = Problem("p", row["question"], extract_answer(row["ground_truth"]))
        for entry in row.values():
            if isinstance(entry, dict):
                count += 1
                verdict = task.check(problem, entry["solution"])
                if (verdict.reward == 1.0) is not entry["is_correct"]:
                    disagreements.append((entry["solution"][-80:], verdict))
    assert count == 4 * 1319
    assert disagreements == []


@needs_data
def test_reference_solutions_are_right_and_without_arithmetic_errors() -> None:
    task = Gsm8k(source=str(DATA))
    problems = [problem for split in ("train", "validation", "test") for problem in task.problems(split)]
    assert len(problems) == 7473 + 1319
    for problem in problems:
        solution = problem.data["solution"]
        assert problem.answer == solution.rpartition("#### ")[2].replace(",", "")
        assert task.check(problem, solution).reward == 1.0
        assert task.first_wrong_calculation(solution) is None


@needs_data
def test_report_is_what_its_script_writes() -> None:
    script = _report_script()
    assert script.render(DATA) == script.REPORT.read_text(encoding="utf-8")


def test_report_counts_a_planted_disagreement(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [record(index) for index in range(100)])
    write_lines(tmp_path / "test.jsonl", [record(0)])
    row = {
        "question": "?",
        "ground_truth": "A: 5",
        "small": {"solution": "<<2+2=5>>5\nA: 5", "is_correct": False},
        "large": {"solution": "A: 5.0", "is_correct": True},
    }
    write_lines(tmp_path / "model_solutions.jsonl", [row])
    script = _report_script()
    report = script.render(tmp_path)
    assert "agrees with `is_correct` on 1 of 2 (50.0%) solutions" in report
    assert "- small, problem 1: recorded False, correct" in report
    assert "| small | 1 of 1 (100.0%) | none | 1.0 of 2.0 |" in report
    (tmp_path / "model_solutions.jsonl").unlink()
    with pytest.raises(GradatimError, match="give the data folder by --data"):
        script.render(tmp_path)


def test_arithmetic_alone_is_no_truth_about_steps() -> None:
    assert not isinstance(Gsm8k(), StepTruth)
