"""The files of the experiment, read as solutions in steps.

Everything that trains comes from ``train`` files; ``test`` files and ``model_solutions.jsonl`` are only evaluated.
A part of the training problems, chosen by a hash of the question, is held out for thresholds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gradatim.errors import GradatimError
from gradatim.tasks.gsm8k import TEMPLATE, Gsm8k

Part = Literal["train", "validation", "test"]

PRMBENCH_CLASSES = (
    "circular", "confidence", "counterfactual", "deception", "domain_inconsistency", "missing_condition", "redundency",
    "step_contradiction",
)  # fmt: skip
"""The error classes, spelt as the files are."""

_HELD_OUT = 0.05  # share of the training questions that is held out, as in Gsm8k
_LINE_BREAKS = re.compile(r"\s*\n\s*")


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution in steps, with what is known of each.

    Attributes:
        question: the problem.
        steps: their texts; each ends with its line break.
        labels: 1 for a right step, 0 for a wrong one, one for each step; none where nothing is known of the steps.
        outcome: whether the final answer is right; ``None`` where that is not known.
        source: where it comes from: a class of PRMBench, a kind of synthetic error, a model.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...] = ()
    outcome: float | None = None
    source: str = ""

    @property
    def prompt(self) -> str:
        return TEMPLATE.replace("{question}", self.question)

    @property
    def text(self) -> str:
        return self.prompt + "".join(self.steps)


@dataclass(frozen=True, slots=True)
class ModelSolutions:
    """What several models answered to one problem.

    Attributes:
        question: the problem.
        answer: the reference answer, as the data set writes it.
        solutions: by model; the outcome is the recorded verdict.
    """

    question: str
    answer: str
    solutions: dict[str, Solution]


def part_named(split: str) -> Part:
    """A part by its name.

    Raises:
        GradatimError: if there is none of that name.
    """
    for part in get_args(Part):
        if part == split:
            found: Part = part
            return found
    raise GradatimError(f"the text has no part {split!r}; it has {', '.join(get_args(Part))}")


def gsm8k_solutions(data: Path, part: Part) -> list[Solution]:
    """The reference solutions: every step is right."""
    task = Gsm8k(source=str(data / "gsm8k"))
    solutions = []
    for problem in task.problems(part):
        steps = lines_of(problem.data["solution"])
        solutions.append(Solution(problem.data["question"], steps, (1.0,) * len(steps), 1.0, "reference"))
    return solutions


def prmbench_solutions(data: Path, part: Literal["train", "validation"]) -> list[Solution]:
    """The modified processes of every class with their labels, and each original process once, all of it right.

    Outcomes are not known.
    """
    solutions = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for name in PRMBENCH_CLASSES:
        for row in _rows(data / "prmbench" / f"train_{name}.jsonl"):
            if (part == "validation") != is_held_out(row["original_question"]):
                continue
            steps = tuple(one_line(step) for step in row["modified_process"])
            # Some files name steps beyond the last; those errors are nowhere.
            wrong = {number - 1 for number in row["error_steps"]}
            labels = tuple(float(index not in wrong) for index in range(len(steps)))
            solutions.append(Solution(row["modified_question"], steps, labels, None, name))
            original = row["original_question"], tuple(one_line(step) for step in row["original_process"])
            if original not in seen:
                seen.add(original)
                solutions.append(Solution(*original, (1.0,) * len(original[1]), None, "original"))
    return solutions


def prmbench_validation_rows(data: Path) -> list[dict[str, Any]]:
    """The rows of the training files whose questions are held out, for the benchmark to choose its threshold on.

    A modified question may be held out by its hash while its original is learned from; such rows are left out.
    """
    learned = {solution.question for solution in prmbench_solutions(data, "train")}
    rows = (row for name in PRMBENCH_CLASSES for row in _rows(data / "prmbench" / f"train_{name}.jsonl"))
    asked = ((row, row["modified_question"]) for row in rows)
    return [row for row, question in asked if is_held_out(question) and question not in learned]


def model_solutions(data: Path) -> list[ModelSolutions]:
    """The solutions of real models to the test problems, with recorded verdicts.

    Their last line, ``A: 18``, is written as in the training text, ``#### 18``.
    """
    problems = []
    for row in _rows(data / "gsm8k" / "model_solutions.jsonl"):
        solutions = {
            model: Solution(
                row["question"],
                lines_of(re.sub(r"^A: ", "#### ", entry["solution"], flags=re.MULTILINE)),
                outcome=float(entry["is_correct"]),
                source=model,
            )
            for model, entry in row.items()
            if isinstance(entry, dict)
        }
        problems.append(ModelSolutions(row["question"], row["ground_truth"], solutions))
    return problems


def language_documents(data: Path, part: Part) -> list[Solution]:
    """What the language model reads: right solutions alone."""
    if part == "test":
        return gsm8k_solutions(data, part)
    originals = [solution for solution in prmbench_solutions(data, part) if solution.source == "original"]
    return gsm8k_solutions(data, part) + originals


def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a solution, each with one line break; empty lines are left out."""
    return tuple(f"{line.strip()}\n" for line in text.split("\n") if line.strip())


def one_line(step: str) -> str:
    """A step on one line with its line break."""
    return _LINE_BREAKS.sub(" ", step.strip()) + "\n"


def is_held_out(question: str) -> bool:
    digest = hashlib.sha256(question.strip().encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < _HELD_OUT


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise GradatimError(f"cannot read {path}: {error.strerror}; give the data folder by --data") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise GradatimError(f"line {number} of {path} is not valid JSON; mend the file") from error
