"""Write what was replicated as a page of the documentation: ``docs/reports/studies.md`` and its pictures; and what it
measured of each recipe where ``gradatim recipes`` finds it.

gradatim replicate --size full
python scripts/publish_replication.py runs/replication
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradatim.evaluation.page import Picture, Section, markdown_page
from gradatim.recipes import Study, load_as
from gradatim.recipes.measured import MEASURED, trained_by
from gradatim.recipes.study import PREPARED
from gradatim.run.replication_report import in_figures, replication_sections

_DOCS = Path(__file__).parents[1] / "docs"
_INTRODUCTION = (
    "Claims of papers, rerun on small testbeds with exact truth (gradatim replicate --size full), lost ones beside "
    "won ones. The models have a million parameters and the tasks are small; nothing here says how large an effect is "
    "on natural language. The tables are those of the command's own report."
)


def main() -> None:
    """Copy the pictures and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of gradatim replicate")
    folder = parser.parse_args().folder
    value = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    pictures = _DOCS / "images" / "studies"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)

    def placed(section: Section) -> Section:
        blocks = []
        for block in section.blocks:
            if isinstance(block, Picture):
                name = "-".join(Path(block.path).parts[1:]).replace("-plots-", "-")
                shutil.copy(folder / block.path, pictures / name)
                block = replace(block, path=f"../images/studies/{name}")
            blocks.append(block)
        return Section(section.title, blocks)

    sections = [Section("", [_INTRODUCTION])]
    sections += [placed(each) for each in replication_sections(value) if not each.title.endswith(": Settings")]
    (_DOCS / "reports" / "studies.md").write_text(markdown_page("Studies", sections), encoding="utf-8")
    MEASURED.write_text(json.dumps(last_results(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def last_results(value: Mapping[str, Any]) -> dict[str, str]:
    """For each recipe that a study trained by, the first claim about what it trained."""
    found: dict[str, str] = {}
    for each in value["studies"]:
        study = load_as(Study, each["study"])
        names = {name: f"{PREPARED}{name}" for name in study.prepare}
        comparison = study.comparison_on(each["testbed"], value["size"], names)
        for claim in each["claims"]:
            for recipe in trained_by(study, comparison, claim):
                figures = in_figures(claim, each)
                found.setdefault(recipe, f"{claim['text']} ({each['testbed']}): {claim['verdict']}; {figures}")
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
