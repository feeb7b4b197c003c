"""The report of a run: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import FEW_PROBLEMS, Estimate
from gradatim.evaluation.compare import Cost, MethodResult, equal_accuracy
from gradatim.evaluation.page import Picture, Section, Table, held, markdown_page
from gradatim.evaluation.policies import PolicyResult
from gradatim.evaluation.steps import StepScoreResult
from gradatim.store.files import write_json, write_text
from gradatim.tasks.truth import OF_STATES

REPORT_VERSION = 2
_RESERVED = {
    "report_version", "title", "settings", "policies", "differences", "search", "equal_accuracy", "prm", "notes",
    "plots",
}  # fmt: skip


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
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    policies: dict[str, PolicyResult] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    search: list[MethodResult] = field(default_factory=list)
    prm: StepScoreResult | None = None
    notes: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)

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
            "policies": list(self.policies),
            **{name: result.to_json() for name, result in self.policies.items()},
            "differences": {name: estimate.to_json() for name, estimate in self.differences.items()},
            "search": [result.to_json() for result in self.search],
            "equal_accuracy": equal_accuracy(self.search),
            "prm": None if self.prm is None else self.prm.to_json(),
            "notes": list(self.notes),
            "plots": dict(self.plots),
        }

    def to_markdown(self) -> str:
        """The report as a page that a person can read from top to bottom."""
        value = self.to_json()
        return markdown_page(self.title, [*figure_sections(value), *closing_sections(value)])

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.json`` and ``report.md`` into ``folder``, each whole or not at all.

        Raises:
            GradatimError: if the disk is full or the folder cannot be written.
        """
        write_json(Path(folder) / "report.json", self.to_json())
        write_text(Path(folder) / "report.md", self.to_markdown())


def figure_sections(value: Mapping[str, Any]) -> list[Section]:
    """The figures of a report; ``value`` is what :meth:`Report.to_json` gives."""
    made = [_policies(value), _search(value), _step_scores(value)]
    return [section for section in made if section is not None]


def closing_sections(value: Mapping[str, Any]) -> list[Section]:
    """What stands at the end of a page: pictures, notes and settings."""
    pictures = [Picture(caption, name) for caption, name in value["plots"].items()]
    settings = [[name, str(entry)] for name, entry in value["settings"].items()]
    return [
        Section("Plots", pictures),
        Section("Notes", value["notes"]),
        Section("Settings", [Table(["setting", "value"], settings, words=2)] if settings else []),
    ]


def settings_text(settings: Mapping[str, Any]) -> str:
    """The settings of a method as part of a sentence."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


_BY_COUNT = {
    "pass_at_k": "pass@{}",
    "majority": "majority of {}",
    "best_of_n": "best of {} by the scorer",
    "weighted_majority": "weighted majority of {}",
}


def _policies(value: Mapping[str, Any]) -> Section | None:
    """The policies side by side, and their paired differences."""
    if not value["policies"]:
        return None
    results = [value[name] for name in value["policies"]]
    first = results[0]
    rows = [["pass@1, sampled", *(_sampled(result) for result in results)]]
    if any("greedy" in result for result in results):
        rows.append(["greedy", *(_optional(result, "greedy") for result in results)])
    for name, label in _BY_COUNT.items():
        for count in sorted({int(count) for result in results for count in result[name]} - {1}):
            cells = [result[name].get(str(count)) for result in results]
            rows.append(
                [label.format(count), *(wording.share(None if c is None else Estimate.from_json(c)) for c in cells)]
            )
    rows.append(["tokens per solved sample", *(wording.tokens(result["tokens_per_solved"]) for result in results)])
    samples = ", ".join(dict.fromkeys(f"{result['samples']:,}" for result in results))
    note = f"{samples} samples each, {wording.intervals_note(first['problems'])}"
    blocks: list[str | Table] = [Table(["", *value["policies"]], rows, note)]
    if differences := value["differences"]:
        unchanged = tuple(f"{name} - " for name in value.get("unchanged", ()))  # the same model twice
        changes = [
            [name, "unchanged" if name.startswith(unchanged) else wording.points(Estimate.from_json(part))]
            for name, part in differences.items()
        ]
        unit = "problems" if first["problems"] < FEW_PROBLEMS else "points"
        blocks.append(Table(["paired difference", unit], changes))
    return Section(f"Policies on {wording.held_out(first['problems'])}", blocks)


def _sampled(result: Mapping[str, Any]) -> str:
    """Accuracy of a sampled solution; over few problems, right solutions are counted, not problems."""
    estimate = Estimate.from_fields(result, "pass_at_1", result["problems"])
    return f"{result['right']:,} of {result['solutions']:,}" if estimate.few else wording.share(estimate)


def _optional(result: Mapping[str, Any], name: str) -> str:
    return wording.share(Estimate.from_fields(result, name, result["problems"]) if name in result else None)


def _search(value: Mapping[str, Any]) -> Section | None:
    """Accuracy against tokens of every method, and what best-of-n would need for the same."""
    results = value["search"]
    if not results:
        return None
    peers = {_same(row): row for row in value["equal_accuracy"]}
    scorers = {result["scorer"] for result in results} - {"none"}
    with_flops = any(result["flops"] is not None for result in results)
    header = ["method", "settings", "tokens", "accuracy", "best of n needs"]
    if several := len(scorers) > 1:
        header.insert(1, "scorer")
    narrow = len(header) if peers else len(header) - 1
    charged = dict.fromkeys(("policy", "scorer", *(name for result in results for name in result["spending"])))
    header += ["ratio", *(f"{name} tokens" for name in charged), *(["FLOPs"] if with_flops else [])]
    rows = []
    for result in results:
        peer, spending = peers.get(_same(result)), result["spending"]
        rows.append(
            [
                result["method"],
                *([result["scorer"]] if several else []),
                ", ".join(held(f"{name} {setting}") for name, setting in result["settings"].items()),
                f"{result['tokens']:,.0f}",
                wording.share(Estimate.from_fields(result, "accuracy", result["problems"])),
                *(("", "") if peer is None else _peer(peer)),
                *(f"{Cost(**spending.get(name, {})).tokens:,.0f}" for name in charged),
                *([] if not with_flops else ["" if result["flops"] is None else f"{result['flops']:.2e}"]),
            ]
        )
    by = f", by the scores of {next(iter(scorers))}" if len(scorers) == 1 else ""
    note = f"Tokens per problem{by}; {wording.intervals_note(results[0]['problems'])}"
    table = Table(header, rows, note, words=3 if several else 2, narrow=narrow)
    return Section(f"Accuracy against tokens, {value.get('searched', 'base')} policy", [table])


def _same(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["method"], str(row["settings"])


def _peer(row: Mapping[str, Any]) -> tuple[str, str]:
    """What best-of-n needs for the accuracy of a guided search, and the share of it that the search pays."""
    needed, reached = row["best_of_n_tokens"], row["reached_tokens"]
    if needed is None:
        return f"> {reached:,.0f}", f"< {row['tokens'] / reached:.2f}" if reached else ""
    return f"{needed:,.0f}", wording.number(row["ratio"], ".2f")


def _step_scores(value: Mapping[str, Any]) -> Section | None:
    prm = value["prm"]
    if prm is None:
        return None
    if prm["auc"] is None:
        area = "all of them are alike, so that there is nothing to tell apart"
    else:
        area = "AUC " + wording.number_with_interval(Estimate.from_fields(prm, "auc", prm["problems"]))
    parts = [
        area,
        f"accuracy {wording.number(prm['accuracy'])} at the threshold {wording.number(prm['threshold'], '.2f')} "
        f"({wording.percent(prm['share_good'])} % {OF_STATES[prm['truth']]})",
    ]
    if (found := prm["first_error"]) is not None:
        parts.append(
            f"first-error F1 {wording.number(found['f1'])} at the threshold "
            f"{wording.number(prm['first_error_threshold'], '.2f')} "
            f"({wording.percent(found['error_accuracy'])} % of the first errors are found, "
            f"{wording.percent(found['correct_accuracy'])} % of the right solutions pass)"
        )
    else:
        parts.append("no first-error F1, for which right and wrong whole solutions are needed")
    text = f"Against the oracle, {prm['states']:,} partial solutions of held-out problems: {'; '.join(parts)}."
    return Section(f"Step scores of {prm['scorer']}", [f"{text} {prm['thresholds']}".rstrip()])
