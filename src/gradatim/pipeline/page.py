"""A run's report as sections: the page ``report.md``, and what the terminal shows at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.page import Section, Table, Verbatim
from gradatim.evaluation.report import closing_sections, figure_sections


def page_sections(value: Mapping[str, Any]) -> list[Section]:
    """The page from top to bottom; ``value`` is the content of ``report.json``."""
    return [_finding(value), _about(value), _next(value), *figure_sections(value), *_labels(value), _time(value)] + (
        closing_sections(value)
    )


def terminal_sections(value: Mapping[str, Any]) -> list[Section]:
    """What the terminal shows of it."""
    return [_finding(value), *figure_sections(value), *_labels(value), _next(value)]


def _finding(value: Mapping[str, Any]) -> Section:
    return Section("", [" ".join(value["finding"])])


def _about(value: Mapping[str, Any]) -> Section:
    return Section("", [Table(["", ""], [[name, text] for name, text in value["about"].items()], words=2)])


def _next(value: Mapping[str, Any]) -> Section:
    return Section("Next", [Verbatim("\n".join(value["next"]))])


def _labels(value: Mapping[str, Any]) -> list[Section]:
    labels = value["labels"]
    if labels is None:
        return []
    text = (
        f"Values of {labels['states']:,} grown steps against the exact oracle: accuracy "
        f"{wording.number(labels['accuracy'])}, AUC {wording.number(labels['auc'])}; "
        f"{wording.percent(labels['share_good'])} % of the steps can still reach the answer."
    )
    return [Section("Step labels", [text])]


def _time(value: Mapping[str, Any]) -> Section:
    rows = [[stage, f"{record['seconds']:.1f}"] for stage, record in value["stages"].items()]
    return Section("Time", [Table(["stage", "seconds"], rows)])
