"""The page of what was replicated: every claim beside what came of it here, won or lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.page import Picture, Section, Table, markdown_page
from gradatim.proportions import TOKENS
from gradatim.recipes.study import Size
from gradatim.run.comparison_report import comparison_sections
from gradatim.store.files import write_json, write_text

RESULT = "result.json"
"""The file of what one study came to on one testbed."""


def write_replication(folder: Path, size: Size) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md`` of all studies of a size in ``folder``; returns the first's content."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / size).glob(f"*/*/{RESULT}"))]
    verdicts = Counter(claim["verdict"] for each in found for claim in each["claims"])
    value = {"kind": "replication", "size": size, "verdicts": dict(verdicts), "studies": found}
    write_json(folder / "report.json", value)
    write_text(folder / "report.md", markdown_page("Replication", replication_sections(value)))
    return value


def replication_sections(value: Mapping[str, Any]) -> list[Section]:
    """The report from top to bottom; ``value`` is the content of ``report.json``."""
    sections = overview_sections(value)
    for each in value["studies"]:
        place = f"{value['size']}/{each['study']}/{each['testbed']}"
        title = f"{each['study']} on {each['testbed']}"
        sections.append(Section(title, [each["summary"], *_costs(each)]))
        for part in comparison_sections(each["report"]):
            blocks = [
                Picture(f"{title}: {block.caption}", f"{place}/{block.path}") if isinstance(block, Picture) else block
                for block in part.blocks
            ]
            sections.append(Section(f"{title}: {part.title}" if part.title else "", blocks))
    return sections


def overview_sections(value: Mapping[str, Any]) -> list[Section]:
    """Every claim with its verdict, as the terminal shows it too."""
    if not value["studies"]:
        return [Section("", ["Nothing was replicated yet."])]
    rows = [
        [each["study"], each["testbed"], claim["text"], claim["paper"], claim["verdict"], in_figures(claim, each)]
        for each in value["studies"]
        for claim in each["claims"]
    ]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in value["verdicts"].items())
    smoke = " At this size nothing is shown but that everything works." if value["size"] == "smoke" else ""
    text = (
        f"{len(rows)} claims of papers, tested at equal tokens on held-out problems: {counts}.{smoke} A claim is won "
        "or lost where the interval of the paired difference leaves out 0 and the test, corrected for the sizes that "
        "were compared, says so; mixed, where it is so at some sizes and the other way round at "
        "others. Of fewer than 1,000 problems or three seeds, a difference of less than 10 points only leans that way. "
        "AUC is measured on the samples of one seed, and has no test but its interval. Policies are compared by what "
        "they write; what the trees cost that they learned from stands with each study."
    )
    header = ["study", "testbed", "claim", "paper", "here", "figures"]
    return [Section("", [text, Table(header, rows, words=6)])]


def in_figures(claim: Mapping[str, Any], study: Mapping[str, Any]) -> str:
    """The size of the effect: the largest difference that was shown, or else the largest that was measured."""
    seeds = len(study["report"]["seeds"])
    over = f"{study['report']['problems']:,} problems, {'1 seed' if seeds == 1 else f'{seeds} seeds'}"
    if "auc_difference" in claim:
        return f"AUC {Estimate.from_json(claim['auc_difference']):+.3f}; {over}"
    if "written_difference" in claim:
        return f"{_written(claim)}; {over}"
    tests: Sequence[Mapping[str, Any]] = claim.get("differences", ())
    if not tests and claim["by"] == "auc":
        return "no scores of good and of bad partial solutions"
    if not tests:
        return "no two sizes of both cost alike"
    shown = [test for test in tests if test["verdict"] != "undecided"] or tests
    test = max(shown, key=lambda test: abs(test["difference"]))
    difference = Estimate.from_fields(test, "difference", test["problems"])
    needed = test["reference_tokens"]
    ratio = "not reached by the other" if needed is None else f"the other needs {needed / test['tokens']:.2f} x that"
    return f"{wording.points(difference)} at {test['tokens']:,.0f} tokens; {ratio}; {over}"


def _written(claim: Mapping[str, Any]) -> str:
    """How two policies differ in what they write, by a claim's measure."""
    test = claim["written_difference"]
    difference = Estimate.from_fields(test, "difference", test["problems"])
    if claim["by"] == TOKENS:
        return f"{difference:+.1f} tokens a solution"
    return f"{claim['by']} {wording.points(difference)}"


def _costs(study: Mapping[str, Any]) -> list[str | Table]:
    """What the trees cost that the models of the comparison were trained on."""
    rows = [
        [name, f"{cost['problems']:,}", f"{cost['tokens']:,}"]
        for name, cost in study["prepared"].items()
        if cost is not None
    ]
    return [Table(["trained first", "problems", "tokens of its trees"], rows)] if rows else []
