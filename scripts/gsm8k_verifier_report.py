"""Compare the GSM8K verifier with recorded verdicts on real models' solutions, and write what comes out.

    python scripts/gsm8k_verifier_report.py --data DIR

``DIR`` holds ``gsm8k/train.jsonl``, ``test.jsonl`` and ``model_solutions.jsonl`` of openai/grade-school-math (MIT).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatim.errors import GradatimError
from gradatim.store.files import write_text
from gradatim.tasks.calculator import Annotation, Finding, check_annotations
from gradatim.tasks.gsm8k import Gsm8k, extract_answer
from gradatim.tree import Problem

REPORT = Path(__file__).resolve().parent.parent / "docs" / "reports" / "gsm8k-verifier.md"


@dataclass
class ModelRecord:
    """What was found of one model's solutions, one entry per solution in every list."""

    recorded: list[bool] = field(default_factory=list)
    judged: list[bool] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)
    first_error: list[int | None] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    findings: Counter[Finding] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    right_with_error: list[str] = field(default_factory=list)

    def flagged(self, right: bool) -> str:
        """How many of the recorded right (or wrong) solutions have an arithmetic error, as a table cell."""
        places = [place for place, recorded in zip(self.first_error, self.recorded, strict=True) if recorded is right]
        return share(sum(place is not None for place in places), len(places))


def share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})" if total else "none"


def judge_models(task: Gsm8k, lines: Iterable[str]) -> dict[str, ModelRecord]:
    """Verify every recorded solution and locate its first wrong calculation."""
    models: dict[str, ModelRecord] = {}
    for number, line in enumerate(lines, 1):
        row: dict[str, Any] = json.loads(line)
        problem = Problem(str(number), row["question"], extract_answer(row["ground_truth"]))
        for name, entry in row.items():
            if isinstance(entry, dict):
                judge(models.setdefault(name, ModelRecord()), task, problem, entry["solution"], entry["is_correct"])
    return models


def judge(model: ModelRecord, task: Gsm8k, problem: Problem, solution: str, recorded: bool) -> None:
    verdict = task.check(problem, solution)
    steps = task.boundary.split(solution)
    place = task.first_wrong_calculation(steps)
    model.recorded.append(recorded)
    model.judged.append(verdict.correct is True)
    model.answered.append(task.answer(problem, solution) is not None)
    model.first_error.append(place)
    model.steps.append(len(steps))
    model.findings.update(annotation.finding for annotation in check_annotations(solution))
    if model.judged[-1] is not recorded:
        model.disagreements.append(f"problem {problem.id}: recorded {recorded}, {verdict.reason}")
    if recorded and place is not None:
        errors = [annotation for annotation in check_annotations(steps[place]) if annotation.finding.is_error]
        model.right_with_error.append(f"problem {problem.id}, step {place + 1}: {describe(errors[0])}")


def describe(annotation: Annotation) -> str:
    return f"`<<{annotation.calculation}>>{annotation.written}` ({annotation.finding})"


def reference_section(data: Path) -> list[str]:
    """How the checks do on the reference solutions, where nearly every step should be right."""
    task = Gsm8k(source=str(data))
    lines = [
        "## Reference solutions",
        "",
        "A check that is to locate errors must not flag steps that are right. On the data set's own solutions:",
        "",
        "| split | solutions | steps | annotations | right | wrong result | miscopied | unreadable | steps flagged |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    oddities: list[str] = []
    for name, splits in {"train": ("train", "validation"), "test": ("test",)}.items():
        problems = [problem for split in splits for problem in task.problems(split)]
        findings: Counter[Finding] = Counter()
        steps = [step for problem in problems for step in task.boundary.split(problem.data["solution"])]
        for step in steps:
            for annotation in check_annotations(step):
                findings[annotation.finding] += 1
                if annotation.finding is not Finding.RIGHT:
                    oddities.append(f"- {name}: {describe(annotation)}")
        flagged = sum(task.first_wrong_calculation([step]) is not None for step in steps)
        cells = [len(problems), len(steps), findings.total(), *(findings[finding] for finding in Finding), flagged]
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", "Every annotation that is not found right:", "", *(oddities or ["- none"]), ""]
    return lines


def model_sections(models: dict[str, ModelRecord]) -> list[str]:
    total = sum(len(model.recorded) for model in models.values())
    disagreements = [f"- {name}, {entry}" for name, model in models.items() for entry in model.disagreements]
    lines = [
        "## Agreement with the recorded verdicts",
        "",
        f"The verifier agrees with `is_correct` on {share(total - len(disagreements), total)} solutions.",
        "",
        "| model | solutions | recorded right | verified right | agree | without a final answer |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, model in models.items():
        count = len(model.recorded)
        cells = [count, sum(model.recorded), sum(model.judged), count - len(model.disagreements)]
        cells.append(count - sum(model.answered))
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", "Disagreements:", "", *(disagreements or ["- none"]), ""]
    return lines + arithmetic_section(models)


def arithmetic_section(models: dict[str, ModelRecord]) -> list[str]:
    lines = [
        "## Arithmetic errors",
        "",
        "A solution is flagged if `first_wrong_calculation` locates a step with a wrong calculation. These models",
        "wrote their annotations with a calculator at hand, so most of their errors are errors of thought, which no",
        "check of arithmetic can see; a flag says much, and no flag says little.",
        "",
        "| model | wrong solutions flagged | right solutions flagged | first flagged step, of steps (means) |",
        "|---|---:|---:|---:|",
    ]
    for name, model in models.items():
        places = [
            (place + 1, steps) for place, steps in zip(model.first_error, model.steps, strict=True) if place is not None
        ]
        mean = "-"
        if places:
            count = len(places)
            mean = f"{sum(p for p, _ in places) / count:.1f} of {sum(steps for _, steps in places) / count:.1f}"
        lines.append(f"| {name} | {model.flagged(False)} | {model.flagged(True)} | {mean} |")
    lines += ["", "| model | annotations | " + " | ".join(Finding) + " |", "|---|" + "---:|" * (len(Finding) + 1)]
    for name, model in models.items():
        cells = [model.findings.total(), *(model.findings[finding] for finding in Finding)]
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    listed = [f"- {name}, {entry}" for name, model in models.items() for entry in model.right_with_error]
    lines += ["", "Solutions with the right final answer that are flagged all the same:", "", *(listed or ["- none"])]
    return lines


def render(data: Path) -> str:
    """The whole report on the files of ``data``.

    Raises:
        GradatimError: if a file is missing or malformed.
    """
    try:
        lines = (data / "model_solutions.jsonl").read_text(encoding="utf-8").strip().split("\n")
        models = judge_models(Gsm8k(source=str(data)), lines)
    except OSError as error:
        raise GradatimError(
            f"cannot read {error.filename}: {error.strerror}; give the data folder by --data"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GradatimError(f"model_solutions.jsonl is malformed: {type(error).__name__} {error}") from error
    introduction = [
        "# The GSM8K verifier against recorded verdicts",
        "",
        "Written by `python scripts/gsm8k_verifier_report.py --data DIR`; do not edit by hand. The data is",
        "openai/grade-school-math (MIT): its reference solutions, and solutions of its 1,319 test problems by four",
        "models, each with a recorded verdict `is_correct`. Problems are numbered by their line from 1.",
        "",
        "What the terms mean, and how far a rounded number may be off, is said in",
        "[`gradatim/tasks/calculator.py`](../../src/gradatim/tasks/calculator.py); how a final answer is found, in",
        "[`gradatim/tasks/gsm8k.py`](../../src/gradatim/tasks/gsm8k.py).",
        "",
    ]
    return "\n".join(introduction + model_sections(models) + ["", *reference_section(data)]).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reports/gsm8k-verifier.md.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds gsm8k/model_solutions.jsonl")
    parser.add_argument("--output", type=Path, default=REPORT, help="where to write the report")
    arguments = parser.parse_args()
    try:
        report = render(arguments.data / "gsm8k")
    except GradatimError as error:
        print(error, file=sys.stderr)
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.output, report)
    print(f"wrote {arguments.output.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
