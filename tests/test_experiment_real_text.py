"""The real-text experiment: labels of synthetic errors are exact, and the whole pipeline runs in tiny sizes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.real_text.__main__ import MAIN, SETTINGS, experiment
from experiments.real_text.documents import (
    PRMBENCH_CLASSES,
    Solution,
    gsm8k_solutions,
    is_held_out,
    one_line,
    prmbench_solutions,
    prmbench_validation_rows,
)
from experiments.real_text.error_injection import ErrorKind, corrupted_solutions, inject_error
from experiments.real_text.prepare import Sizes
from experiments.real_text.tables import tables
from experiments.real_text.tokenizer import train_tokenizer
from experiments.real_text.trees import solution_trees

from gradatim.store.published.base import LABEL
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.gsm8k import Gsm8k, extract_answer

SIZES = Sizes(tokens=3000, longest=512, synthetic_problems=6)
PRETRAINING = [
    "task.vocabulary=300",
    "size={hidden: 32, layers: 2, heads: 2, feed_forward: 48, positions: 512}",
    "training={updates: 16, window: 64, batch_size: 4, learning_rate: 2.0e-3, held_out: 12, save_dtype: float32}",
]


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
        labels = {node.step.text: node.scores[LABEL] for node in trees[0].nodes[1:]}
        assert labels == {"a\n": pytest.approx(2 / 3), "b\n": 1.0, "c\n": 0.0, "d\n": 0.0}
        [tree], _ = solution_trees(solutions, train_tokenizer(["abcd\n"], 270), outcomes=True)
        assert {node.step.text: node.scores[LABEL] for node in tree.nodes if LABEL in node.scores} == {
            "b\n": 1.0, "c\n": 0.0,
        }  # fmt: skip

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
        rows = [_benchmark_row(name, i) for i in range(2000)]
        for row in rows:
            row["modified_question"] += " Hurry."
        _write(tmp_path / "prmbench" / f"train_{name}.jsonl", rows)
    rows = prmbench_validation_rows(tmp_path)
    learned = {solution.question for solution in prmbench_solutions(tmp_path, "train")}
    assert rows
    assert not learned & {row["modified_question"] for row in rows}


def test_the_whole_experiment(tmp_path: Path) -> None:
    """Every command on made-up files; a second call trains and scores nothing and gives the same."""
    write_data(tmp_path / "data")

    def run() -> dict[str, Any]:
        return experiment(
            tmp_path / "data", tmp_path / "output", SIZES, pretraining=PRETRAINING,
            learning=["policy.device=cpu", "learn.0.training.tokens_per_batch=512"],
        )  # fmt: skip

    results = run()
    assert {name: len(runs) for name, runs in results["runs"].items()} == {
        name: 2 if name == MAIN else 1 for name in SETTINGS
    }
    for each in (run for runs in results["runs"].values() for run in runs):
        assert 3000 <= each["prepared"]["tokens"] < 4000
    first = {benchmark["title"]: benchmark for benchmark in results["runs"][MAIN][0]["benchmarks"]}
    assert first["Labelled steps"]["results"]["process_reward"]["wrong_steps"] == 12
    chosen = first["Best-of-n selection"]["results"]["process_reward"]
    assert chosen["any_right"]["value"] == 1.0
    assert {author: each["value"] for author, each in chosen["authors"].items()} == {"right": 1, "slip": 0, "guess": 0}
    assert 0 <= chosen["outcome_auc"]["all"]["value"] <= 1
    trained = (tmp_path / "output" / "reward_models" / "main-setting-0" / "scorer" / "model.safetensors").stat()
    assert json.loads(json.dumps(run())) == json.loads(json.dumps(results))
    path = tmp_path / "output" / "reward_models" / "main-setting-0" / "scorer" / "model.safetensors"
    assert path.stat().st_mtime_ns == trained.st_mtime_ns
    text = tables(results)
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
