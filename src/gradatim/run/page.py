"""A run's report as sections: the page ``report.md``, and what the terminal shows at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.page import Section, Table, Verbatim
from gradatim.evaluation.report import closing_sections, figure_sections
from gradatim.run.benchmarks import benchmark_sections
from gradatim.run.online_report import online_sections
from gradatim.tasks.truth import OF_STEPS


def page_sections(value: Mapping[str, Any]) -> list[Section]:
    """The page from top to bottom; ``value`` is the content of ``report.json``."""
    return [
        _finding(value),
        _warnings(value),
        _about(value),
        _next(value),
        *online_sections(value),
        *figure_sections(value),
        *benchmark_sections(value),
        *_labels(value),
        _outcomes(value),
        _counts(value),
        _learned_from(value),
        _solutions(value),
        _time(value),
        *closing_sections(value),
    ]


def terminal_sections(value: Mapping[str, Any]) -> list[Section]:
    """What the terminal shows of it."""
    return [
        _finding(value),
        _warnings(value),
        *online_sections(value),
        *figure_sections(value),
        *benchmark_sections(value),
        *_labels(value),
        _next(value),
    ]


def _finding(value: Mapping[str, Any]) -> Section:
    return Section("", [" ".join(value["finding"])])


def _warnings(value: Mapping[str, Any]) -> Section:
    return Section("Warnings", [f"{place}. {text}" for place, text in enumerate(value["warnings"], start=1)])


def _about(value: Mapping[str, Any]) -> Section:
    return Section("", [Table(["", ""], [[name, text] for name, text in value["about"].items()], words=2)])


def _next(value: Mapping[str, Any]) -> Section:
    return Section("Next", [Verbatim("\n".join(value["next"]))] if value["next"] else [])


def _labels(value: Mapping[str, Any]) -> list[Section]:
    labels = value["labels"]
    if labels is None:
        return []
    text = (
        f"Values of {labels['states']:,} grown steps against the exact oracle: accuracy "
        f"{wording.number(labels['accuracy'])}, AUC {wording.number(labels['auc'])}; "
        f"{wording.percent(labels['share_good'])} % of the steps {OF_STEPS[labels['truth']]}."
    )
    return [Section("Step labels", [text])]


def _outcomes(value: Mapping[str, Any]) -> Section:
    """How the solutions of each stage ended; columns without any are left out."""
    rows = []
    for stage, part in value["outcomes"].items():
        figures = {
            "problems": f"{part['problems']:,} of {part['asked']:,}",
            "failed": f"{part['failed']:,}",
            "solutions": f"{part['solutions']:,}",
            "right": _of(part["right"], part),
            **{f"ended by {name}": _of(count, part) for name, count in part["finished"].items()},
            **{f"cut off by {name}": _of(count, part) for name, count in part["cut_off"].items()},
            "left open": _of(part["open"], part),
            "without value": "" if part["without_value"] is None else _of(part["without_value"], part),
            "problems with identical draws": f"{part['identical']:,} of {part['repeated']:,}"
            if part["identical"]
            else "0",
        }
        rows.append([stage, *figures.values()])
    if not rows:
        return Section("", [])
    header = ["stage", *figures]
    kept = [place for place in range(len(header)) if any(row[place] not in ("", "0") for row in rows)]
    table = Table([header[place] for place in kept], [[row[place] for place in kept] for row in rows])
    return Section("What became of the solutions", [table])


def _counts(value: Mapping[str, Any]) -> Section:
    """What passes over the trees of each stage counted."""
    rows = [
        [stage, name, ", ".join(f"{count:,} {what}" for what, count in counts.items())]
        for stage, passes in value["counts"].items()
        for name, counts in passes.items()
    ]
    return Section("What was counted in trees", [Table(["stage", "by", "counted"], rows, words=3)] if rows else [])


def _learned_from(value: Mapping[str, Any]) -> Section:
    """What each training learned from: what constructions gave, and what filters kept of it."""
    rows = [
        [stage, part["part"], part["why"], f"{part['kept']:,}", f"{part['dropped']:,}" if part["why"] else ""]
        for stage, table in value["learned_from"].items()
        for part in table
    ]
    header = ["training", "construction or filter", "drops what", "kept", "dropped"]
    return Section("What was learned from", [Table(header, rows, words=3)] if rows else [])


def _of(count: int, part: Mapping[str, Any]) -> str:
    return f"{count:,} ({wording.percent(count / part['solutions'])} %)" if count else "0"


def _solutions(value: Mapping[str, Any]) -> Section:
    """A few solutions, each fenced."""
    blocks: list[str | Verbatim] = []
    for entry in value["solutions"]:
        blocks.append(
            f"{entry['problem']}, {entry['kind']}; ended by {entry['ended_by']}; the verifier says: {entry['verifier']}"
        )
        blocks.append(Verbatim(entry["prompt"] + entry["text"]))
    return Section(f"Some solutions of the {value['searched']} policy", blocks)


def _time(value: Mapping[str, Any]) -> Section:
    rows = [[stage, f"{record['seconds']:.1f}"] for stage, record in value["stages"].items()]
    return Section("Time", [Table(["stage", "seconds"], rows)])
