"""The real-text experiment: labels of synthetic errors are exact, and the whole pipeline runs in tiny sizes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.real_text.documents import (
    PRMBENCH_CLASSES,
    ModelSolutions,
    Solution,
    gsm8k_solutions,
    is_held_out,
    one_line,
    prmbench_records,
    prmbench_solutions,
)
from experiments.real_text.error_injection import ErrorKind, corrupted_solutions, inject_error
from experiments.real_text.evaluation import (
    arithmetic_errors,
    benchmark_threshold,
    first_error_threshold,
    outcome_auc,
    process_benchmark,
    scored_problems,
    selection,
    sibling_accuracy,
    synthetic_errors,
)
from experiments.real_text.language_model import PackedText, perplexity
from experiments.real_text.pipeline import run
from experiments.real_text.scoring import likelihood_scores, reward_scores
from experiments.real_text.settings import LanguageModelSettings, RewardModelSettings, Settings
from experiments.real_text.stages import stage
from experiments.real_text.tables import tables
from experiments.real_text.tokenizer import train_tokenizer
from experiments.real_text.trees import outcome_labels, process_labels, solution_trees

from gradatim.errors import GradatimError
from gradatim.evaluation.step_records import StepRecord
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.gsm8k import Gsm8k, extract_answer

TINY = Settings(
    language_model=LanguageModelSettings(
        vocabulary=300, hidden=32, layers=2, heads=2, feed_forward=48, positions=512, tokens=4096, window=64, batch=4
    ),
    reward_model=RewardModelSettings(tokens=3000, row=512, longest=512),
    seeds=2,
    synthetic_problems=6,
    resamples=10,
)


def word_problem(random: Random) -> tuple[str, list[str], int]:
    """A made-up problem, its steps as GSM8K writes them, and the answer."""
    boxes, each, gone, days = (random.randint(*ends) for ends in ((13, 39), (41, 79), (101, 299), (3, 9)))
    total = boxes * each
    left = total - gone
    question = (
        f"A farm packs {boxes} boxes of {each} eggs and sells {gone} eggs. The rest lasts for {days} weeks, "
        f"with as many eggs again bought. How many eggs are there?"
    )
    steps = [
        f"There are {boxes} x {each} = <<{boxes}*{each}={total}>>{total} eggs at first.",
        f"Then {total:,} - {gone} = <<{total}-{gone}={left}>>{left} are left.",
        f"Bought as many, there are {left} + {left} = <<{left}+{left}={2 * left}>>{2 * left} eggs.",
        f"#### {2 * left}",
    ]
    return question, steps, 2 * left


def reference(seed: int) -> Solution:
    question, steps, _ = word_problem(Random(seed))
    return Solution(question, tuple(f"{step}\n" for step in steps), (1.0,) * len(steps), 1.0, "reference")


class TestErrors:
    @given(seed=st.integers(0, 10_000), kind=st.sampled_from(list(ErrorKind)), propagate=st.booleans())
    def test_labels_are_those_of_a_comparison_with_the_reference(
        self, seed: int, kind: ErrorKind, propagate: bool
    ) -> None:
        right = reference(seed)
        wrong = inject_error(right, kind, Random(seed), propagate=propagate)
        if wrong is None:
            return
        assert wrong.labels == tuple(float(step in right.steps) for step in wrong.steps)
        assert 0.0 in wrong.labels
        first = wrong.labels.index(0.0)
        assert wrong.steps[:first] == right.steps[:first] or kind is ErrorKind.SKIPPED_STEP
        answers = [extract_answer("".join(solution.steps)) for solution in (wrong, right)]
        assert wrong.outcome == float(answers[0] == answers[1])

    @given(seed=st.integers(0, 10_000), kind=st.sampled_from(list(ErrorKind)), propagate=st.booleans())
    def test_calculations_are_wrong_exactly_where_the_kind_says(
        self, seed: int, kind: ErrorKind, propagate: bool
    ) -> None:
        wrong = inject_error(reference(seed), kind, Random(seed), propagate=propagate)
        if wrong is None:
            return
        place = Gsm8k.first_wrong_calculation(Gsm8k.__new__(Gsm8k), wrong.steps)
        assert place == (wrong.labels.index(0.0) if kind.is_arithmetic else None)
        contradicting = [step for step in wrong.steps if any(a.finding.is_error for a in check_annotations(step))]
        assert len(contradicting) == int(kind.is_arithmetic)

    @given(seed=st.integers(0, 10_000))
    def test_a_propagated_error_reaches_the_answer(self, seed: int) -> None:
        for kind in (ErrorKind.WRONG_RESULT, ErrorKind.MISCOPIED, ErrorKind.WRONG_OPERATOR):
            wrong = inject_error(reference(seed), kind, Random(seed), propagate=True)
            if wrong is None:
                continue
            # every number depends on the one before, so nothing right follows
            first = wrong.labels.index(0.0)
            assert set(wrong.labels[first:]) == {0.0}
            assert wrong.outcome == 0.0

    def test_every_kind_occurs(self) -> None:
        random = Random(0)
        found = Counter(
            solution.source for seed in range(60) for solution in corrupted_solutions(reference(seed), 3, random)
        )
        assert set(found) == {kind.value for kind in ErrorKind}

    def test_a_wrong_operand_by_hand(self) -> None:
        right = Solution(
            "Ann has 7 bags of 5 apples. She eats 4. How many are left?",
            ("She has 7*5=<<7*5=35>>35 apples.\n", "Now 35-4=<<35-4=31>>31 are left.\n", "#### 31\n"),
        )
        found = {
            wrong.steps
            for seed in range(200)
            if (wrong := inject_error(right, ErrorKind.WRONG_OPERAND, Random(seed))) is not None
        }
        assert ("She has 4*5=<<4*5=20>>20 apples.\n", "Now 20-4=<<20-4=16>>16 are left.\n", "#### 16\n") in found

    def test_a_skipped_step_by_hand(self) -> None:
        right = Solution(
            "Ann has 7 bags of 5 apples. She eats 4. How many are left?",
            ("She has 7*5=<<7*5=35>>35 apples.\n", "Now 35-4=<<35-4=31>>31 are left.\n", "#### 31\n"),
        )
        found = {
            wrong.steps
            for seed in range(50)
            if (wrong := inject_error(right, ErrorKind.SKIPPED_STEP, Random(seed))) is not None
        }
        assert found == {
            ("Now 7-4=<<7-4=3>>3 are left.\n", "#### 3\n"),
            ("Now 5-4=<<5-4=1>>1 are left.\n", "#### 1\n"),
        }

    def test_an_ambiguous_number_is_refused(self) -> None:
        # 8 is the result, and a number of the question that the next step uses: nobody can say which one it means
        right = Solution(
            "Tom has 4 dogs with 2 bones each and 8 cats. How many animals and bones?",
            ("There are 4*2=<<4*2=8>>8 bones.\n", "So 8+8=<<8+8=16>>16 things.\n", "#### 16\n"),
        )
        firsts = [
            wrong.steps[0]
            for seed in range(50)
            if (wrong := inject_error(right, ErrorKind.WRONG_RESULT, Random(seed))) is not None
        ]
        assert set(firsts) == {right.steps[0]}


class TestTrees:
    def test_shared_beginnings_are_one_node_with_the_mean_label(self) -> None:
        solutions = [
            Solution("Q", ("a\n", "b\n"), (1.0, 1.0), 1.0),
            Solution("Q", ("a\n", "c\n"), (0.0, 0.0), 0.0),
            Solution("Q", ("a\n", "d\n"), (1.0, 0.0)),
        ]
        trees, ends = solution_trees(solutions, train_tokenizer(["abcd\n"], 270))
        assert [len(tree) for tree in trees] == [5]
        assert [[node.step.text for node in end.path()[1:]] for end in ends] == [
            ["a\n", x] for x in ("b\n", "c\n", "d\n")
        ]
        labels = {term.ends[0].step.text: term.targets[0] for term in process_labels(trees)}
        assert labels == {
            "a\n": pytest.approx(2 / 3), "b\n": 1.0, "c\n": 0.0, "d\n": 0.0,
        }  # fmt: skip
        assert {label.ends[0].step.text: label.targets[0] for label in outcome_labels(trees)} == {
            "b\n": 1.0,
            "c\n": 0.0,
        }

    @given(st.lists(st.text(alphabet="ab 19<=>*$.é\t'", max_size=12), min_size=1, max_size=5))
    def test_the_tokens_of_the_steps_are_those_of_the_text(self, lines: list[str]) -> None:
        solution = Solution("How many 19?", tuple(f"{line}\n" for line in lines))
        [tree], [end] = solution_trees([solution], TOKENIZER)
        assert end.tokens == TOKENIZER(solution.text, add_special_tokens=False)["input_ids"]
        assert TOKENIZER.decode(end.tokens) == solution.text
        assert tree.problem.prompt + end.text == solution.text

    def test_every_digit_is_a_token(self) -> None:
        assert TOKENIZER.tokenize("1984") == ["1", "9", "8", "4"]


TOKENIZER = train_tokenizer([reference(seed).text for seed in range(20)], 300)


class TestScores:
    def test_packed_scores_are_the_scorer_s(self, tmp_path: Path) -> None:
        model = _tiny_reward_model()
        solutions = [solution for seed in range(3) for solution in (reference(seed), *_errors(seed))]
        packed = reward_scores(model, TOKENIZER, solutions)
        trees, ends = solution_trees(solutions, TOKENIZER)
        scorer = ProcessRewardScorer(model)
        for tree in trees:
            asyncio.run(scorer.score(tree.nodes[1:]))
        for values, end in zip(packed, ends, strict=True):
            expected = [node.scores[scorer.name] for node in end.path()[1:]]
            assert values == pytest.approx(expected, abs=0.02)  # packed scoring computes in bfloat16

    def test_likelihood_and_perplexity_agree(self) -> None:
        model = _tiny_language_model()
        solutions = [reference(seed) for seed in range(4)]
        scores = likelihood_scores(model, TOKENIZER, solutions)
        total, count = 0.0, 0
        for solution, values in zip(solutions, scores, strict=True):
            for text, value in zip(solution.steps, values, strict=True):
                tokens = len(TOKENIZER(text)["input_ids"])
                total += tokens * float(torch.tensor(value).log())
                count += tokens
        measured = perplexity(model, TOKENIZER, solutions)
        assert measured["tokens"] == count
        assert measured["perplexity"] == pytest.approx(float(torch.tensor(-total / count).exp()), rel=0.01)


class TestEvaluation:
    def test_wrong_calculations_by_hand(self) -> None:
        """Four calculating steps, one of them wrong and scored lowest of its solution but not of all."""
        problem = ModelSolutions(
            "Q", "A: 4",
            {
                "a": Solution("Q", ("<<1+1=2>>2 a\n", "<<2+2=5>>5 b\n", "#### 5\n"), outcome=0.0),
                "b": Solution("Q", ("<<1+1=2>>2 a\n", "<<2+2=4>>4 b\n", "#### 4\n"), outcome=1.0),
            },
        )  # fmt: skip
        scored = scored_problems([problem], [[0.8, 0.4, 0.1], [0.3, 0.9, 0.9]])
        result = arithmetic_errors(scored, threshold=0.5, resamples=5)
        assert (result["steps"], result["wrong_steps"]) == (4, 1)
        assert result["auc"]["value"] == pytest.approx(2 / 3)
        assert (result["precision"], result["recall"], result["f1"]) == (0.5, 1.0, pytest.approx(2 / 3))
        assert result["lowest_step_is_first_error"]["value"] == 1.0
        assert result["lowest_step_by_chance"] == 0.5
        chosen = selection(scored, "last")
        assert chosen["best by score"]["value"] == 1.0
        assert chosen["best by score minus a"]["value"] == 1.0
        assert selection(scored, "min")["best by score"]["value"] == 1.0
        assert selection(scored, "product")["best by score"]["value"] == 1.0
        assert outcome_auc(scored, "last", 5)["all four"]["value"] == 1.0

    def test_synthetic_errors_by_hand(self) -> None:
        right = Solution("Q", ("a\n", "b\n"), (1.0, 1.0), 1.0, "reference")
        wrong = Solution("Q", ("a\n", "c\n"), (1.0, 0.0), 0.0, "wrong answer")
        result = synthetic_errors([right, wrong], [[0.9, 0.8], [0.9, 0.7]], threshold=0.75, resamples=5)
        assert result["auc"]["all"]["value"] == result["auc"]["wrong answer"]["value"] == 1.0
        assert result["first_error"]["f1"] == 1.0
        assert (result["lowest_step_is_first_error"], result["lowest_step_by_chance"]) == (1.0, 0.5)

    def test_siblings_are_compared_at_the_first_error_alone(self) -> None:
        right = Solution("Q", ("a\n", "b\n", "#### 1\n"), (1.0, 1.0, 1.0), 1.0, "reference")
        wrong = Solution("Q", ("a\n", "x\n", "#### 2\n"), (1.0, 0.0, 0.0), 0.0, "wrong result")
        tied = Solution("Q", ("y\n", "b\n", "#### 1\n"), (0.0, 1.0, 1.0), 1.0, "miscopied")
        early = Solution("Q", ("a\n", "#### 2\n"), (1.0, 0.0), 0.0, "stopped early")
        scores = [[0.5, 0.6, 0.1], [0.5, 0.4, 0.9], [0.5, 0.6, 0.1], [0.5, 0.1]]
        result = sibling_accuracy([right, wrong, tied, early], scores)
        assert {name: (part["value"], part["pairs"]) for name, part in result.items()} == {
            "all": (0.75, 2), "wrong result": (1.0, 1), "miscopied": (0.5, 1),
        }  # fmt: skip

    def test_the_first_error_threshold_parts_right_from_wrong(self) -> None:
        right = Solution("Q", ("a\n", "b\n"), (1.0, 1.0))
        wrong = Solution("Q", ("a\n", "c\n"), (1.0, 0.0))
        scores = [[0.9, 0.8 + i / 1000] for i in range(20)] + [[0.9, 0.5 + i / 1000] for i in range(20)]
        threshold = first_error_threshold([right] * 20 + [wrong] * 20, scores)
        assert 0.519 < threshold <= 0.8

    def test_the_benchmark_threshold_is_the_best_one(self) -> None:
        records = [
            StepRecord(str(i), "Q", ("a", "b"), (True, False), "deception", str(i)) for i in range(20)
        ]  # fmt: skip
        scores = [[0.5 + i / 100, 0.4 + i / 200] for i in range(20)]
        threshold = benchmark_threshold(records, scores)
        assert 0.49 <= threshold < 0.5
        result = process_benchmark(records, scores, threshold, 5)
        assert result["prm_score"] == result["auc"]["all"]["value"] == 1.0
        assert result["prm_score_of_calling_all_right"] == pytest.approx(1 / 3)  # half of the F1 of the right steps


def test_windows_hold_every_document_once_an_epoch() -> None:
    documents = [[i] * 3 for i in range(8)]
    windows = PackedText(documents, window=12, count=4, seed=0)
    ids = torch.cat([windows[i]["input_ids"] for i in range(len(windows))])
    assert Counter(ids[:24].tolist()) == Counter(ids[24:].tolist()) == Counter(dict.fromkeys(range(8), 3))


def test_a_stage_runs_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return {"value": 1}

    assert stage(tmp_path / "a", {"x": (1, 2)}, make) == stage(tmp_path / "a", {"x": (1, 2)}, make) == {"value": 1}
    assert len(calls) == 1
    with pytest.raises(GradatimError, match="other settings"):
        stage(tmp_path / "a", {"x": (1, 3)}, make)


def test_held_out_questions_are_in_no_training_set(tmp_path: Path) -> None:
    write_data(tmp_path)
    train, validation = (gsm8k_solutions(tmp_path, part) for part in ("train", "validation"))
    assert train
    assert validation
    assert not {s.question for s in train} & {s.question for s in validation}
    assert sum(is_held_out(f"question {i}") for i in range(4000)) == pytest.approx(200, abs=50)
    assert one_line("Step 1.\n\n  - a\n") == "Step 1. - a\n"


def test_a_held_out_wording_of_a_learned_question_is_not_evaluated(tmp_path: Path) -> None:
    (tmp_path / "prmbench").mkdir()
    for name in PRMBENCH_CLASSES:
        rows = [_benchmark_row(name, i) for i in range(200)]
        for row in rows:
            row["modified_question"] += " Hurry."
        _write(tmp_path / "prmbench" / f"train_{name}.jsonl", rows)
    records = prmbench_records(tmp_path, "validation")
    learned = {solution.question for solution in prmbench_solutions(tmp_path, "train")}
    assert records
    assert not learned & {record.problem for record in records}


def test_the_whole_pipeline(tmp_path: Path) -> None:
    """Every stage on made-up files; a second run does nothing and gives the same."""
    write_data(tmp_path / "data")
    results = run(tmp_path / "data", tmp_path / "output", TINY)
    assert [(run["name"], run["seed"]) for run in results["runs"]] == [
        *((name, 0) for name in TINY.variants()), ("main setting", 1),
    ]  # fmt: skip
    for result in results["runs"]:
        tokens = sum(result["training"]["tokens"].values())
        assert 3000 <= tokens < 4000
        assert 0 <= result["outcome_auc"]["min"]["all four"]["value"] <= 1
    assert results["without_scores"]["oracle"]["value"] == 1.0
    assert results["without_scores"]["right"]["value"] == 1.0
    assert results["without_scores"]["slip"]["value"] == 0.0
    assert results["runs"][0]["arithmetic"]["wrong_steps"] == 12
    trained = (tmp_path / "output" / "reward_models" / "main-setting-0" / "model" / "model.safetensors").stat()
    again = run(tmp_path / "data", tmp_path / "output", TINY)
    assert json.loads(json.dumps(again)) == json.loads((tmp_path / "output" / "results.json").read_text())
    path = tmp_path / "output" / "reward_models" / "main-setting-0" / "model" / "model.safetensors"
    assert path.stat().st_mtime_ns == trained.st_mtime_ns
    text = tables(again)
    assert "| main setting | 2 |" in text
    assert "| fewer steps |" in text
    assert "undefined" not in text.split("## PRMBench")[1]


def write_data(folder: Path) -> None:
    """Made-up files in the layout of the real ones."""
    random = Random(0)
    (folder / "gsm8k").mkdir(parents=True)
    (folder / "prmbench").mkdir()
    for name, count in (("train", 60), ("test", 12)):
        rows = []
        for _ in range(count):
            question, steps, _ = word_problem(random)
            rows.append({"question": question, "answer": "\n".join(steps)})
        _write(folder / "gsm8k" / f"{name}.jsonl", rows)
    solutions = []
    for row in rows:
        right = row["answer"].replace("####", "A:")
        lines = right.split("\n")
        first = lines[0].replace(">>", ">>9", 1)
        solutions.append(
            {
                "question": row["question"],
                "ground_truth": right,
                "right": {"is_correct": True, "solution": right},
                "slip": {"is_correct": False, "solution": "\n".join([first, *lines[1:-1], "A: 1"])},
                "guess": {"is_correct": False, "solution": "A: 1"},
            }
        )
    _write(folder / "gsm8k" / "model_solutions.jsonl", solutions)
    for name in PRMBENCH_CLASSES:
        for part, first in (("train", 0), ("test", 100)):
            _write(folder / "prmbench" / f"{part}_{name}.jsonl", [_benchmark_row(name, first + i) for i in range(30)])
    _write(folder / "prmbench" / "multi_solutions.jsonl", [_benchmark_row("multi_solutions", 200)])


def _benchmark_row(name: str, number: int) -> dict[str, Any]:
    question = f"What is {number} plus 1?"
    original = ["We add 1.", f"So {number} + 1 = {number + 1}."]
    modified = original if name == "multi_solutions" else [original[0], f"So {number} + 1 = {number + 7}, by {name}."]
    return {
        "idx": f"{name}_{number}", "classification": name, "question": question, "original_question": question,
        "modified_question": question, "original_process": original, "modified_process": modified,
        "modified_steps": [2], "error_steps": [] if name == "multi_solutions" else [2], "reason": "",
    }  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _errors(seed: int) -> list[Solution]:
    return corrupted_solutions(reference(seed), 2, Random(seed))


def _tiny_language_model() -> Any:
    from experiments.real_text.language_model import new_language_model

    return new_language_model(TOKENIZER, TINY.language_model).eval()


def _tiny_reward_model() -> Any:
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(0)
    config = _tiny_language_model().config
    config.num_labels, config.classifier_dropout = 1, 0.0
    return AutoModelForTokenClassification.from_config(config).eval()
