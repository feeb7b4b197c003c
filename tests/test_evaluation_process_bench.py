"""ProcessBench against the authors' own output and by hand; reading its records, scoring them, keeping the scores."""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.evaluation.benchmarks.base import BenchmarkReport
from gradatim.evaluation.benchmarks.process_bench import ProcessBench, best_f1_threshold, process_bench
from gradatim.evaluation.metrics import first_below, first_error_f1
from gradatim.evaluation.record_scoring import ScoreFile, score_records
from gradatim.evaluation.step_records import StepRecord, record_trees, sampled_questions
from gradatim.part import make, names
from gradatim.tree import EndReason
from json_lines import write_lines
from step_solutions import TextScorer, golden, oracle_scores, scores_for

GOLDEN = golden("process_bench.json")


def row(id: str, label: int, steps: int = 3, problem: str = "How many?") -> dict[str, Any]:
    texts = [f"step {number}" for number in range(steps)]
    return {"id": id, "problem": problem, "steps": texts, "label": label, "final_answer_correct": label < 0}


def solution(id: str, first_error: int | None, steps: int, group: str = "gsm8k") -> StepRecord:
    """What :class:`ProcessBench` makes of a record with that label."""
    known = steps if first_error is None else first_error
    labels = [*[True] * known, False, *[None] * steps][:steps]
    return StepRecord(id, "How many?", tuple("abcdefgh"[:steps]), tuple(labels), group, id)


@st.composite
def judged_solutions(draw: st.DrawFn) -> tuple[list[StepRecord], list[list[float]]]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(-1, 3)), min_size=1, max_size=8))
    records = [solution(str(i), error if 0 <= error < n else None, n) for i, (n, error) in enumerate(shapes)]
    return records, scores_for(draw, records)


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: f"threshold {run['threshold']}")
def test_the_authors_code_prints_the_same(run: dict[str, Any], tmp_path: Path) -> None:
    given_rows = [each for rows in GOLDEN["records"].values() for each in rows]
    rows = [row(each["id"], each["label"], len(each["scores"])) for each in given_rows]
    records = ProcessBench(data=write_lines(tmp_path / "all.jsonl", rows)).records()
    result = process_bench(records, [each["scores"] for each in given_rows], run["threshold"])
    assert run["printed"] == [
        f"{name} error acc: {100 * (score.error_accuracy or 0):.1f}, "
        f"correct acc: {100 * (score.correct_accuracy or 0):.1f}, f1: {100 * (score.f1 or 0):.1f}"
        for name, score in result.subsets.items()
    ]


def test_by_hand() -> None:
    # gsm8k, threshold 0.5. Wrong from step 1: scores .9 .5 -> none below .5, missed; .9 .4 -> found.
    # Wrong from step 0: .2 .1 -> found. So 2 of 3. Right: .6 .5 -> nothing reported, good; .6 .4 -> a false alarm. So
    # 1 of 2.
    # F1 = 2 * 2/3 * 1/2 / (2/3 + 1/2) = 4/7. math: its one wrong solution is found, and there is no right one, so
    # that it has no F1, and there is no average.
    records = [
        solution("1", 1, 2), solution("2", 1, 2), solution("3", 0, 2), solution("4", None, 2), solution("5", None, 2),
        solution("6", 0, 1, "math"),
    ]  # fmt: skip
    result = process_bench(records, [[0.9, 0.5], [0.9, 0.4], [0.2, 0.1], [0.6, 0.5], [0.6, 0.4], [0.3]], 0.5)
    gsm8k, math_part = result.subsets["gsm8k"], result.subsets["math"]
    assert (gsm8k.error_accuracy, gsm8k.correct_accuracy) == (2 / 3, 1 / 2)
    assert gsm8k.f1 == pytest.approx(4 / 7)
    assert (math_part.error_accuracy, math_part.correct_accuracy, math_part.f1) == (1.0, None, None)
    assert result.average_f1 is None
    assert process_bench(records[:5], [[0.9, 0.5], [0.9, 0.4], [0.2, 0.1], [0.6, 0.5], [0.6, 0.4]]).figures()[
        "average F1"
    ] == pytest.approx(400 / 7)


@given(judged_solutions(), st.sampled_from([0.0, 0.3, 0.5, 1.0, "auto"]))
def test_shares_are_shares_and_the_oracle_has_all(
    judged: tuple[list[StepRecord], list[list[float]]], threshold: Any
) -> None:
    records, scores = judged
    result = ProcessBench(data="unread", threshold=threshold).measure(records, scores)
    for score in result.subsets.values():
        shares = [share for share in (score.error_accuracy, score.correct_accuracy) if share is not None]
        assert 0 <= min(shares) <= max(shares) <= 1
        assert (score.f1 is None) == (len(shares) == 1)
        assert score.f1 is None or min(shares) - 1e-12 <= score.f1 <= max(shares) + 1e-12
    perfect = process_bench(records, oracle_scores(records)).subsets["gsm8k"]
    kinds = {record.first_error is None for record in records}
    assert perfect.f1 == (1.0 if len(kinds) == 2 else None)
    assert perfect.error_accuracy == (1.0 if False in kinds else None)
    assert perfect.correct_accuracy == (1.0 if True in kinds else None)


@given(judged_solutions())
def test_the_chosen_threshold_is_the_lowest_of_the_best(judged: tuple[list[StepRecord], list[list[float]]]) -> None:
    records, scores = judged
    truth = [record.first_error for record in records]

    def f1(threshold: float) -> float:
        return first_error_f1([first_below(values, threshold) for values in scores], truth).f1 or 0.0

    candidates = sorted({score for values in scores for score in values}) + [math.inf]
    best = max(map(f1, candidates))
    expected = next(threshold for threshold in candidates if f1(threshold) > best - 1e-9)
    assert best_f1_threshold(scores, truth) == expected


def test_the_threshold_is_chosen_on_gsm8k_alone() -> None:
    # On gsm8k 0.6 parts .5 (wrong) from .6 (right); on math it would be 0.3.
    records = [
        solution("1", 0, 1), solution("2", None, 1), solution("3", 0, 1, "math"), solution("4", None, 1, "math"),
    ]  # fmt: skip
    benchmark = ProcessBench(data="unread", threshold="auto")
    result = benchmark.measure(records, [[0.5], [0.6], [0.2], [0.3]])
    assert result.threshold == 0.6
    assert result.subsets["gsm8k"].f1 == 1.0
    assert result.subsets["math"].correct_accuracy == 0.0
    with pytest.raises(GradatimError, match="gsm8k subset, but the data has none"):
        benchmark.measure(records[2:], [[0.2], [0.3]])


def test_the_threshold_is_chosen_on_validation_data_alone() -> None:
    # 0.6 parts .5 from .6 in the data that decide; in what is judged it is no use, and these are in no figure
    deciding = [replace(solution(id, error, 1), decides=True) for id, error in (("1", 0), ("2", None))]
    judged = [solution("3", 0, 1), solution("4", None, 1)]
    result = ProcessBench(data="unread", threshold="auto").measure([*judged, *deciding], [[0.2], [0.3], [0.5], [0.6]])
    assert result.threshold == 0.6
    assert result == process_bench(judged, [[0.2], [0.3]], 0.6)


def test_records_from_lines_lists_folders_patterns_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = write_lines(tmp_path / "math.jsonl", [row("math-0", 1), row("math-1", -1)])
    (tmp_path / "other.json").write_text(json.dumps([row("seventh", 2)]))
    write_lines(tmp_path / "train_math.jsonl", [row("math-2", 1)])
    records = ProcessBench(data=lines).records()
    assert [(record.id, record.group, record.first_error) for record in records] == [
        ("math-0", "math", 1), ("math-1", "math", None),
    ]  # fmt: skip
    assert records[0].labels == (True, False, None)
    assert [record.correct for record in records] == [False, True]
    assert [record.group for record in ProcessBench(data=str(tmp_path)).records()] == ["math", "math", "other"]
    assert len(ProcessBench(data=str(tmp_path / "*math.jsonl")).records()) == 3
    asked = []

    def load_dataset(name: str, config: None, *, split: None) -> dict[str, list[dict[str, Any]]]:
        asked.append(name)
        return {"gsm8k": [row("gsm8k-0", 0)], "omnimath": [row("omnimath-0", 3)]}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(
        GradatimError, match=r"row 1 of the omnimath split of 'Qwen/ProcessBench' \(omnimath-0\) has the "
    ):
        ProcessBench(data="Qwen/ProcessBench").records()
    assert asked == ["Qwen/ProcessBench"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"data\.jsonl' has no records"),
        ('{"', r"line 1 of '.*data\.jsonl' is not valid JSON"),
        ("[1]", r"row 1 of '.*data\.jsonl' is not a JSON object"),
        (
            json.dumps({"id": "a", "problem": "p", "steps": ["s"]}),
            r"line 1 of '.*data\.jsonl' \(a\) has no field 'label'",
        ),
        (
            "\n" + json.dumps(row("a", 3)),
            r"line 2 of '.*data\.jsonl' \(a\) has the label 3, but its steps are numbered fro",
        ),
        (json.dumps(row("a", -2)), "has the label -2"),
        (json.dumps(row("a", 0) | {"label": True}), "has True in the field 'label'"),
        (json.dumps(row("a", 0) | {"steps": []}), "nothing in the field 'steps'"),
        (json.dumps(row("a", 0) | {"steps": ["s", 1]}), "a list of texts in the field 'steps'"),
        (json.dumps(row("a", 0) | {"problem": " "}), "no text in the field 'problem'"),
    ],
)
def test_bad_records_are_refused_with_their_line(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(GradatimError, match=sentence):
        ProcessBench(data=str(tmp_path / "data.jsonl")).records()


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match="there is no file or folder"):
        ProcessBench(data=str(tmp_path / "missing.jsonl")).records()
    with pytest.raises(GradatimError, match=r"has no \.json or \.jsonl files"):
        ProcessBench(data=str(tmp_path)).records()


def three_records() -> list[StepRecord]:
    """Two solutions of one problem that begin alike, and one of another."""
    unknown: tuple[bool | None, ...] = (None, None)
    return [
        StepRecord("a", "One?", ("same", "then a"), unknown, "g", "a"),
        StepRecord("b", "Two?", ("same", "then b"), unknown, "g", "b"),
        StepRecord("c", "One?", ("same", "then c"), unknown, "g", "c", finished=False),
    ]


def test_solutions_of_a_problem_share_their_beginning() -> None:
    one, two = record_trees(enumerate(three_records()))
    assert [index for index, _ in one.paths] == [0, 2]
    assert [node.step.text for node in one.tree.nodes] == ["One?\n", "same\n", "then a", "then c\n"]
    assert one.paths[0][1][0] is one.paths[1][1][0]
    assert [node.step.end for node in one.tree.nodes[1:]] == [
        EndReason.BOUNDARY, EndReason.END_OF_TEXT, EndReason.BOUNDARY,
    ]  # fmt: skip
    assert two.tree.problem.data == {"question": "Two?"}
    assert len(two.tree) == 3


def length(question: str, text: str) -> float:
    return float(len(text))


def test_scores_come_in_the_records_order_and_each_step_is_asked_once() -> None:
    records = three_records()
    scorer, counts = TextScorer(length), list[int]()
    scores = asyncio.run(score_records(records, scorer, in_flight=2, progress=counts.append))
    assert scores == [[5.0, 11.0], [5.0, 11.0], [5.0, 12.0]]
    assert sorted(scorer.asked) == [
        ("One?", "same\n"), ("One?", "same\nthen a"), ("One?", "same\nthen c\n"),
        ("Two?", "same\n"), ("Two?", "same\nthen b"),
    ]  # fmt: skip
    assert sorted(counts) == [1, 2]
    assert scorer.released == 2


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    records, path = three_records(), tmp_path / "out" / "scores.jsonl"
    with pytest.raises(RuntimeError, match="went down"):
        asyncio.run(
            score_records(records, TextScorer(length, fails_at="then b"), in_flight=1, scores=ScoreFile(path, "s"))
        )
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "dig')  # torn by a crash
    second, counts = TextScorer(length), list[int]()
    kept = ScoreFile(path, "s")
    assert len(kept) == 2
    scores = asyncio.run(score_records(records, second, scores=kept, progress=counts.append))
    assert scores == [[5.0, 11.0], [5.0, 11.0], [5.0, 12.0]]
    assert {question for question, _ in second.asked} == {"Two?"}
    assert counts == [2, 1]
    assert path.read_bytes().startswith(whole)
    third = TextScorer(length)
    assert asyncio.run(score_records(records[::-1], third, scores=ScoreFile(path, "s"))) == scores[::-1]
    assert not third.asked
    changed = StepRecord("a", "One?", ("same", "then another"), (None, None), "g", "a")
    assert ScoreFile(path, "s").get(changed) is None
    cut_off = replace(records[0], finished=False)  # ends in another token for some scorers
    assert ScoreFile(path, "s").get(cut_off) is None


def test_score_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreFile(path, "first").append({three_records()[0]: [0.1, 0.2]})
    with pytest.raises(GradatimError, match="holds the scores of 'first', not of 'second'"):
        ScoreFile(path, "second")
    with pytest.raises(GradatimError, match="'first' gave before its files changed; delete it, or choose"):
        ScoreFile(path, "first", model_digest="new")
    with pytest.raises(GradatimError, match="'first' with no settings, not dtype float16; delete it"):
        ScoreFile(path, "first", settings={"dtype": "float16"})
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    with pytest.raises(GradatimError, match="line 3 of"):
        ScoreFile(path, "first")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused_and_not_kept(value: float, tmp_path: Path) -> None:
    scorer = TextScorer(lambda question, text: value if "then b" in text else 0.5)
    scores = ScoreFile(tmp_path / "scores.jsonl", "s")
    with pytest.raises(GradatimError, match="not a number"):
        asyncio.run(score_records(three_records(), scorer, in_flight=1, scores=scores))
    assert [scores.get(record) is not None for record in three_records()] == [True, False, True]


def test_records_that_a_scorer_cannot_read_are_left_out(tmp_path: Path) -> None:
    scorer = TextScorer(lambda question, text: None if "then b" in text else 0.5)
    scores = ScoreFile(tmp_path / "scores.jsonl", "s")
    found = asyncio.run(score_records(three_records(), scorer, in_flight=1, scores=scores))
    assert found == [[0.5, 0.5], None, [0.5, 0.5]]
    assert [scores.get(record) for record in three_records()] == found
    with pytest.raises(GradatimError, match="left a step of every record without a score"):
        asyncio.run(score_records(three_records(), TextScorer(lambda question, text: None)))


@pytest.mark.parametrize("header", ['{"scorer": "s", "format": 1}', '{"scorer": "s"}', "[]", "{}"])
def test_score_files_of_another_kind_are_refused(header: str, tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text(header + "\n")
    with pytest.raises(GradatimError, match=r"another version|holds no step scores"):
        ScoreFile(tmp_path / "scores.jsonl", "s")


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ([[0.5, 0.5]], "scores of 1 solutions for 3"),
        ([[0.5, 0.5], [0.5], [0.5, 0.5]], "the record 'b' has 2 steps but 1 scores"),
        ([[0.5, 0.5], [0.5, 0.5], [math.nan, 0.5]], "the record 'c' has a score that is not a number"),
    ],
)
@pytest.mark.parametrize("name", names("evaluation/benchmarks"))
def test_no_benchmark_takes_scores_that_do_not_fit(name: str, scores: list[list[float]], sentence: str) -> None:
    with pytest.raises(GradatimError, match=sentence):
        make("evaluation/benchmarks", {"name": name, "data": "unread"}).measure(three_records(), scores)


def test_solutions_of_questions_with_equal_ids_are_not_mixed(tmp_path: Path) -> None:
    solutions = [{"steps": ["a"], "correct": True}, {"steps": ["b"], "correct": False}]
    rows = [{"id": "1", "question": question, "solutions": solutions} for question in ("One?", "Two?")]
    data = [write_lines(tmp_path / folder, [each]) for folder, each in zip(("x.jsonl", "y.jsonl"), rows, strict=True)]
    for name in ("best_of_n", "mp_bench"):
        records = make("evaluation/benchmarks", {"name": name, "data": data}).records()
        assert len({record.question for record in records}) == 2
        assert [record.problem for record in sampled_questions(records, 1)] in (["One?"] * 2, ["Two?"] * 2)
    twice = write_lines(tmp_path / "z.jsonl", [row("gsm8k-1", 0, problem="One?"), row("gsm8k-1", 0, problem="Two?")])
    drawn = ProcessBench(data=twice, limit=1).records()
    assert [record.problem for record in drawn] in (
        ["One?"],
        ["Two?"],
    )


def test_a_limit_keeps_whole_questions_of_every_group() -> None:
    def record(id: str, group: str, question: str) -> StepRecord:
        return StepRecord(id, "p", ("s",), (True,), group, question)

    records = [record("1", "x", "q"), record("2", "x", "r"), record("3", "y", "r"), record("4", "x", "q")]
    assert [each.id for each in sampled_questions(records, 1)] in (["1", "3", "4"], ["2", "3"])
    assert sampled_questions(records, 2) == records


def test_a_limit_draws_both_kinds_of_solutions_by_the_seed(tmp_path: Path) -> None:
    rows = [row(f"gsm8k-{number}", -1 if number >= 80 else 0) for number in range(100)]  # in the order of their kinds
    records = ProcessBench(data=write_lines(tmp_path / "gsm8k.jsonl", rows)).records()
    drawn = {seed: [record.id for record in sampled_questions(records, 10, seed)] for seed in (0, 1)}
    assert drawn[0] == [record.id for record in sampled_questions(records, 10, 0)]
    assert drawn[0] != drawn[1]
    assert [sum(int(id.removeprefix("gsm8k-")) >= 80 for id in ids) for ids in drawn.values()] == [2, 2]
    for limit in (2, 5, 99):
        chosen = sampled_questions(records, limit)
        assert len(chosen) == limit
        assert {record.first_error is None for record in chosen} == {True, False}
        perfect = [[1.0 if label is True else 0.0 for label in record.labels] for record in chosen]
        assert process_bench(chosen, perfect).average_f1 == 1.0


def test_what_is_missing_is_shown_as_a_dash_and_not_as_nothing_found(tmp_path: Path) -> None:
    rows = [row("gsm8k-1", 0), row("gsm8k-2", 1), row("math-1", 0), row("math-2", -1)]
    records = ProcessBench(data=write_lines(tmp_path / "rows.jsonl", rows)).records()
    perfect = [[1.0 if label is True else 0.0 for label in record.labels] for record in records]
    result = process_bench(records, perfect)
    assert result.figures()["gsm8k, error accuracy"] == 100.0
    assert (result.figures()["gsm8k, F1"], result.figures()["average F1"], result.figures()["math, F1"]) == (
        None, None, 100.0,
    )  # fmt: skip
    results = ProcessBench(data="unread").report(records, "perfect", perfect)
    BenchmarkReport("ProcessBench", {}, results).write(tmp_path)
    table = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| gsm8k, F1 +\| +– \|", table)
    assert json.loads((tmp_path / "report.json").read_text())["results"]["perfect"]["average_f1"] is None
