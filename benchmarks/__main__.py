"""``python -m benchmarks``: every comparison, a table, and ``runs/bench/report.json``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import SkippedError
from gradatim.store import write_json

BENCHMARKS = {
    "engine_vs_generate": "engine_vs_generate",
    "engine_vs_generate_batch": "engine_vs_generate",
    "engine_vs_llama_cpp": "engine_vs_llama_cpp",
    "prm_incremental": "prm_incremental",
    "reader_vs_rows": "reader_vs_rows",
    "engine_vs_matrix_products": "limits",
    "training_vs_causal_row": "limits",
    "search_overhead": "search_overhead",
    "beam_vs_rereading": "beam_vs_rereading",
    "beam_vs_thinkbooster": "beam_vs_thinkbooster",
    "training_vs_trl_dpo": "training_vs_trl_dpo",
    "online_round": "online_round",
    "online_update": "online_round",
    "training_vs_trl_grpo": "training_vs_trl_grpo",
    "training_vs_tree_row": "training_vs_tree_row",
    "large_vocabulary": "large_vocabulary",
}
LOWER_IS_BETTER = {"online_round", "search_overhead", "engine_vs_matrix_products", "training_vs_causal_row"}
TARGETS = {"training_vs_trl_dpo": 5.0}  # where token reuse is 4 or more


def main() -> None:
    """Run the benchmarks that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--only", choices=list(BENCHMARKS), help="one benchmark")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="folder of report.json")
    options = parser.parse_args()
    console = Console()
    modules = [BENCHMARKS[options.only]] if options.only else list(dict.fromkeys(BENCHMARKS.values()))
    rows: list[dict[str, Any]] = []
    for module in modules:
        console.print(f"{module} ...", highlight=False)
        try:
            rows += importlib.import_module(f"benchmarks.{module}").run(options.quick)
        except SkippedError as missing:
            console.print(f"  skipped: {missing}", highlight=False)
        write_json(options.output / "report.json", rows)  # what is done is kept
    console.print(_table(rows))
    console.print(f"Report: {options.output / 'report.json'}", highlight=False)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Ratios to a peer that did the same work in the same run", title_justify="left")
    for column in ("benchmark", "peer", "setting"):
        table.add_column(column)
    for column in ("ratio", "target", "largest difference"):
        table.add_column(column, justify="right")
    for row in rows:
        target = _target(row)
        met = target is None or (row["ratio"] < target if row["name"] in LOWER_IS_BETTER else row["ratio"] >= target)
        bound = "" if target is None else f"{'<' if row['name'] in LOWER_IS_BETTER else '>='} {target:g}"
        verdict = "" if target is None else " met" if met else " MISSED"
        reuse = row["settings"].get("reuse")
        setting = row["settings"].get("what", "") if reuse is None else f"token reuse {reuse:.1f}"
        table.add_row(
            row["name"], row["peer"], setting, f"{row['ratio']:.3g}", bound + verdict, f"{row['max_difference']:.1e}"
        )
    return table


def _target(row: dict[str, Any]) -> float | None:
    if row["name"] == "training_vs_trl_dpo" and row["settings"]["reuse"] < 4:
        return None
    target = row["settings"].get("target", TARGETS.get(row["name"]))
    return float(target) if target else None  # 0 stands for none


if __name__ == "__main__":
    main()
