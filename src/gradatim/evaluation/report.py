"""The report of a run: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.compare import MethodResult
from gradatim.evaluation.policies import PolicyResult
from gradatim.evaluation.steps import StepScoreResult
from gradatim.store.files import write_json, write_text

REPORT_VERSION = 1
_RESERVED = {"report_version", "title", "settings", "differences", "search", "prm", "notes", "plots", "details"}


@dataclass(slots=True)
class Report:
    """What a run measured.

    Attributes:
        title: heads the report.
        settings: the seeds, splits and sizes that the figures depend on.
        policies: results by the policy's name (``"base"``, ``"step_dpo"``); each is a key of the JSON report.
        differences: named paired differences with their intervals (``"step_dpo - base: pass@1"``).
        search: accuracy against compute, one entry for each method and setting.
        prm: quality of the process reward model's step scores.
        notes: sentences for the reader, such as what fell short and why.
        plots: caption to file name, relative to the report's folder.
        details: further JSON values for programs.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    policies: dict[str, PolicyResult] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    search: list[MethodResult] = field(default_factory=list)
    prm: StepScoreResult | None = None
    notes: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object, with the same keys in every run.

        Raises:
            ValueError: if a policy is named like another key of the report.
        """
        if clash := _RESERVED & set(self.policies):
            raise ValueError(f"a policy cannot be called {sorted(clash)[0]!r}: the report uses that key")
        return {
            "report_version": REPORT_VERSION,
            "title": self.title,
            "settings": dict(self.settings),
            **{name: result.to_json() for name, result in self.policies.items()},
            "differences": {name: estimate.to_json() for name, estimate in self.differences.items()},
            "search": [result.to_json() for result in self.search],
            "prm": None if self.prm is None else self.prm.to_json(),
            "notes": list(self.notes),
            "plots": dict(self.plots),
            "details": dict(self.details),
        }

    def to_markdown(self) -> str:
        """The report as a page that a person can read from top to bottom."""
        sections = [
            f"# {self.title}",
            "Brackets hold 95 % bootstrap intervals over problems.",
            *_policies_section(self.policies, self.differences),
            *_search_section(self.search),
            *([] if self.prm is None else _step_score_section(self.prm)),
            *(f"![{caption}]({name})" for caption, name in self.plots.items()),
            *(["## Notes", "\n".join(f"- {note}" for note in self.notes)] if self.notes else []),
            *(["## Settings", _settings_table(self.settings)] if self.settings else []),
        ]
        return "\n\n".join(sections) + "\n"

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.json`` and ``report.md`` into ``folder``, each whole or not at all.

        Raises:
            GradatimError: if the disk is full or the folder cannot be written.
        """
        write_json(Path(folder) / "report.json", self.to_json())
        write_text(Path(folder) / "report.md", self.to_markdown())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table: the first column to the left, all others (numbers) to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _policies_section(policies: Mapping[str, PolicyResult], differences: Mapping[str, Estimate]) -> list[str]:
    if not policies:
        return []
    rows: dict[str, list[str]] = {"pass@1": [_percent(result.pass_at_1) for result in policies.values()]}
    if any(result.greedy for result in policies.values()):
        rows["greedy"] = [_percent(result.greedy) for result in policies.values()]
    for label, name in {
        "pass@{}": "pass_at_k", "majority of {}": "majority", "best of {}": "best_of_n",
        "weighted majority of {}": "weighted_majority",
    }.items():  # fmt: skip
        by_count: list[dict[int, Estimate]] = [getattr(result, name) for result in policies.values()]
        for count in sorted({count for part in by_count for count in part if count > 1}):
            rows[label.format(count)] = [_percent(part.get(count)) for part in by_count]
    rows["tokens per solved sample"] = [
        f"{result.tokens_per_solved:,.0f}" for result in policies.values()
    ]  # fmt: skip
    table = markdown_table(["", *policies], [[label, *cells] for label, cells in rows.items()])
    counts = "; ".join(f"{name}: {r.pass_at_1.n} problems, {r.samples} samples each" for name, r in policies.items())
    sections = ["## Policies", table, f"Measured on {counts}."]
    if differences:
        changes = [[name, _percent(estimate, "+.1f")] for name, estimate in differences.items()]
        sections.append(markdown_table(["paired difference", "points"], changes))
    return sections


def _search_section(results: Sequence[MethodResult]) -> list[str]:
    if not results:
        return []
    with_flops = any(result.flops is not None for result in results)
    header = ["method", "scorer", "settings", "accuracy", "tokens per problem", "policy", "scorer"]
    rows = [
        [
            result.method,
            result.scorer,
            ", ".join(f"{name} {value}" for name, value in result.settings.items()),
            _percent(result.accuracy),
            f"{result.tokens:,.0f}",
            f"{result.spending['policy_prefill'] + result.spending['policy_generated']:,.0f}",
            f"{result.spending['scorer_prefill'] + result.spending['scorer_generated']:,.0f}",
            *([] if not with_flops else ["" if result.flops is None else f"{result.flops:.2e}"]),
        ]
        for result in results
    ]
    return ["## Search", markdown_table([*header, *(["FLOPs"] if with_flops else [])], rows)]


def _step_score_section(prm: StepScoreResult) -> list[str]:
    rows = [
        ["AUC", "undefined: all states are alike" if prm.auc is None else f"{prm.auc:.3f}"],
        [f"accuracy at threshold {prm.threshold:.2f}", f"{100 * prm.accuracy:.1f} %"],
        ["states that can still reach the answer", f"{100 * prm.share_good:.1f} %"],
    ]
    if prm.first_error is not None:
        found = prm.first_error
        rows += [
            ["first-error F1", f"{found.f1:.3f}"],
            ["first error found in wrong solutions", f"{100 * found.error_accuracy:.1f} %"],
            ["no error reported in right solutions", f"{100 * found.correct_accuracy:.1f} %"],
        ]
    return [f"## Step scores of {prm.scorer}", markdown_table([f"over {prm.states:,} partial solutions", ""], rows)]


def _settings_table(settings: Mapping[str, Any]) -> str:
    return markdown_table(["setting", "value"], [[name, str(value)] for name, value in settings.items()])


def _percent(estimate: Estimate | None, spec: str = ".1f") -> str:
    if estimate is None:
        return ""
    value, low, high = (format(100 * number, spec) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
