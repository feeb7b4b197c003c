"""A run's outcome as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(report: Mapping[str, Any], console: Console) -> None:
    """Print what a run measured; ``report`` is the content of its ``report.json``."""
    keys = ["base", *report["comparison"]]
    console.print(_policies(report, keys))
    for key, differences in report["comparison"].items():
        parts = [
            f"{name} {100 * part['value']:+.1f} points {_interval(part['low'], part['high'], '+.1f')}"
            for name, part in differences.items()
            if name in {"pass@1", "pass@8"}
        ]
        console.print(f"{key} against base, paired: {'; '.join(parts)}", highlight=False)
    if report["search"]:
        console.print(_search(report))
    if (prm := report["prm"]) is not None and prm["auc"] is not None:
        low, high = prm["auc_interval"]
        console.print(
            f"Process reward model against the oracle, {prm['states']:,} partial solutions of held-out problems: AUC "
            f"{prm['auc']:.3f} [{low:.3f}, {high:.3f}], accuracy {prm['accuracy']:.3f}, "
            f"first-error F1 {_number(prm['first_error_f1'])}",
            highlight=False,
        )
    if (labels := report["labels"]) is not None:
        console.print(
            f"Step labels against the oracle, {labels['states']:,} steps: accuracy {labels['accuracy']:.3f}, "
            f"AUC {_number(labels['auc'])}",
            highlight=False,
        )


def _policies(report: Mapping[str, Any], keys: Sequence[str]) -> Table:
    first = report[keys[0]]
    table = Table(
        title=f"Policies on {first['problems']} held-out problems, % with 95 % intervals", title_justify="left"
    )
    table.add_column("")
    for key in keys:
        table.add_column(key, justify="right")
    table.add_row("pass@1, sampled", *(_percent(report[key], "pass_at_1") for key in keys))
    if "greedy" in first:
        table.add_row("greedy", *(_percent(report[key], "greedy") for key in keys))
    labels = {"pass_at_k": "pass@{}", "majority": "majority of {}", "best_of_n": "best of {} by the scorer"}
    for name, label in labels.items():
        for count in first[name]:
            if count != "1":
                table.add_row(label.format(count), *(_percent_of(report[key][name].get(count)) for key in keys))
    table.add_row("tokens per solved problem", *(_tokens(report[key]["tokens_per_solved"]) for key in keys))
    return table


def _search(report: Mapping[str, Any]) -> Table:
    table = Table(title="Accuracy against tokens, base policy", title_justify="left")
    for column in ("method", "scorer", "settings"):
        table.add_column(column)
    for column in ("tokens", "accuracy %", "best of n needs"):
        table.add_column(column, justify="right")
    peers = {(row["method"], str(row["settings"])): row for row in report["equal_accuracy"]}
    for row in report["search"]:
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        peer = peers.get((row["method"], str(row["settings"])))
        needed = "" if peer is None else _needed(peer)
        table.add_row(row["method"], row["scorer"], settings, _tokens(row["tokens"]), _percent(row, "accuracy"), needed)
    return table


def _needed(row: Mapping[str, Any]) -> str:
    """What best-of-n needs for the accuracy of a guided search."""
    needed = row["best_of_n_tokens"]
    return f"> {row['reached_tokens']:,.0f}" if needed is None else f"{needed:,.0f}"


def _percent(values: Mapping[str, Any], name: str) -> str:
    return f"{100 * values[name]:.1f} {_interval(*values[f'{name}_interval'])}"


def _percent_of(estimate: Mapping[str, float] | None) -> str:
    return "" if estimate is None else f"{100 * estimate['value']:.1f} {_interval(estimate['low'], estimate['high'])}"


def _interval(low: float, high: float, spec: str = ".1f") -> str:
    return f"({format(100 * low, spec)} to {format(100 * high, spec)})"


def _tokens(value: float | None) -> str:
    return "none solved" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
