"""Everything that the recipes read, made of the data sets: trees to learn from, and records to be judged on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerBase

from experiments.real_text.documents import (
    Part,
    Solution,
    gsm8k_solutions,
    model_solutions,
    prmbench_validation_rows,
)
from experiments.real_text.error_injection import corrupted_solutions
from experiments.real_text.trees import Source, packed_tokens, training_trees
from gradatim.store.files import write_json, write_text
from gradatim.store.published.base import LABEL
from gradatim.store.trees import TreeStore
from gradatim.tasks.calculator import check_annotations
from gradatim.tasks.gsm8k import extract_answer

_CORRUPTIONS = 3
_SEED = 1_000_003  # of the errors that are evaluated; training seeds are small numbers


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is prepared; the defaults are those of the report.

    Attributes:
        tokens: training tokens of a reward model, each solution seen once.
        longest: longest solution that is learned from, in tokens.
        real_problems: test problems of which the models' solutions are judged, the first so many.
        synthetic_problems: test problems in which errors are made for evaluation.
    """

    tokens: int = 400_000
    longest: int = 1024
    real_problems: int = 660
    synthetic_problems: int = 300


def prepare_records(data: Path, folder: Path, sizes: Sizes) -> None:
    """Write the records of the benchmarks into ``folder``."""
    problems = model_solutions(data)[: sizes.real_problems]
    _write(
        folder / "solutions.jsonl",
        ({"question": each.question, "solutions": _recorded(each.solutions)} for each in problems),
    )
    real = (solution for problem in problems for solution in problem.solutions.values())
    _write(folder / "calculations.jsonl", (_labelled(each, list(map(_is_right, each.steps))) for each in real))
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        errors = evaluated_errors(data, part, sizes.synthetic_problems)
        _write(
            folder / f"synthetic-{part}.jsonl",
            (_labelled(each, [label == 1 for label in each.labels]) for each in errors),
        )
    _write(folder / "prmbench-validation.jsonl", prmbench_validation_rows(data))


def prepare_trees(
    data: Path,
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    sizes: Sizes,
    *,
    sources: tuple[Source, ...],
    corruptions: int,
    outcomes: bool,
    seed: int,
) -> dict[str, Any]:
    """Write the trees of one reward model to ``path``; returns how much there is to learn, also written beside them."""
    told = path.with_suffix(".json")
    if not told.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        trees = training_trees(
            data, tokenizer, sources, tokens=sizes.tokens, longest=sizes.longest, corruptions=corruptions,
            outcomes=outcomes, seed=seed,
        )  # fmt: skip
        with TreeStore(path) as store:
            for tree in trees:
                store.append(tree)
        labels = [node.scores[LABEL] for tree in trees for node in tree.nodes if LABEL in node.scores]
        tokens = sum(map(packed_tokens, trees))
        write_json(told, {"tokens": tokens, "labels": len(labels), "right": sum(labels) / len(labels)})
    result: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return result


def evaluated_errors(data: Path, part: Part, problems: int) -> list[Solution]:
    """The first reference solutions of a part, each followed by wrong ones made of it; always the same."""
    random = Random(_SEED)
    solutions: list[Solution] = []
    for reference in gsm8k_solutions(data, part)[:problems]:
        solutions += [reference, *corrupted_solutions(reference, _CORRUPTIONS, random)]
    return solutions


def _recorded(solutions: Mapping[str, Solution]) -> list[dict[str, Any]]:
    return [
        {
            "author": model,
            "steps": list(each.steps),
            "correct": each.outcome == 1,
            "answer": extract_answer("".join(each.steps)),
        }
        for model, each in solutions.items()
    ]


def _labelled(solution: Solution, labels: list[bool | None] | list[bool]) -> dict[str, Any]:
    return {"question": solution.question, "steps": list(solution.steps), "labels": labels, "kind": solution.source}


def _is_right(step: str) -> bool | None:
    """Whether a step's calculations are right; ``None`` for a step without any."""
    findings = [annotation.finding for annotation in check_annotations(step)]
    return None if not findings else not any(finding.is_error for finding in findings)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
