"""Reports as pages: exact counts where problems are few, no number that is none, and no text that leaves its place."""

from __future__ import annotations

import json
import re

import pytest

from gradatim.evaluation import Cost, Report, Sample, method_result, policy_result
from gradatim.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from gradatim.evaluation.page import Section, Table, fenced, held, markdown_page, markdown_table, printable
from gradatim.evaluation.report import figure_sections
from gradatim.evaluation.wording import counted, intervals_note, number, points, share

SPENDING = {"policy": Cost(read=4.0, written=16.0)}


def report(problems: int, right: int) -> Report:
    """A policy that solves the first ``right`` of its problems with the first of two samples."""
    samples = [[Sample(float(place < right), "a"), Sample(0.0, "b")] for place in range(problems)]
    greedy = [float(place < right) for place in range(problems)]
    result = policy_result(samples, [40.0] * problems, counts=[1, 2], greedy=greedy)
    return Report(
        "A run",
        policies={"base": result, "trained": result},
        differences={"trained - base: pass@1": bootstrap_difference([0.0] * problems, greedy)},
        search=[
            method_result("sampling", "none", greedy, [SPENDING] * problems, settings={"n": 1}),
            method_result("beam search", "prm", greedy, [SPENDING] * problems, settings={"width": 2}),
        ],
    )


@pytest.mark.parametrize(("problems", "right"), [(1, 0), (1, 1), (2, 1), (8, 3), (19, 0), (40, 0), (40, 10)])
def test_no_figure_is_infinite_or_without_meaning(problems: int, right: int) -> None:
    made = report(problems, right)
    page, value = made.to_markdown(), json.dumps(made.to_json(), allow_nan=False)
    assert not re.search(r"\b(inf|nan|None|null)\b", page)
    assert json.loads(value)["base"]["right"] == right
    assert ("none solved" in page) == (right == 0)
    assert ("few problems" in page) == (problems < 20)


def test_few_problems_are_counted() -> None:
    page = report(8, 3).to_markdown()
    assert "| pass@1, sampled | 3 of 16 | 3 of 16 |" in page
    assert "| greedy | 3 of 8 | 3 of 8 |" in page
    assert "| trained - base: pass@1 | +3 of 8 |" in page
    assert "| sampling | n 1 | 20 | 3 of 8 |" in page
    assert " to " not in page
    assert "[" not in page, "no intervals"
    whole = report(40, 10).to_markdown()
    assert re.search(r"\| greedy \| 25\.0 \(\d+\.\d to \d+\.\d\) \|", whole)


def test_every_account_has_its_tokens() -> None:
    spending = {**SPENDING, "judge": Cost(read=30.0, written=0.5, parameters=7)}
    made = Report("A run", search=[method_result("beam search", "judge", [1.0] * 20, [spending] * 20)])
    page = made.to_markdown()
    assert re.search(r"\| policy tokens +\| scorer tokens +\| judge tokens", page)
    assert re.search(r"\| 20 +\| 0 +\| 30 +\|", page)
    assert "FLOPs" not in page, "the size of the policy is unknown"


@pytest.mark.parametrize("problems", [8, 40])
def test_a_policy_that_training_left_as_it_was_has_no_difference(problems: int) -> None:
    value = {**report(problems, 3).to_json(), "unchanged": ["trained"]}
    page = markdown_page("A run", figure_sections(value))
    assert "| trained - base: pass@1 | unchanged |" in page
    assert ("| paired difference | problems |" in page) == (problems == 8)


def test_wording_of_single_figures() -> None:
    assert share(None) == "–"
    assert share(bootstrap_mean([0.5] * 4)) == "2 of 4"
    assert share(bootstrap_mean([0.35] * 4)) == "1.4 of 4", "an expectation over subsets of the samples"
    assert share(Estimate(0.5, 0.25, None, 40)) == "50.0 (from 25.0)"
    assert share(Estimate(0.5, 0.25, 0.75, 40)) == "50.0 (25.0 to 75.0)"
    assert points(Estimate(-0.00001, -0.1, 0.1, 40)) == "+0.0 (-10.0 to +10.0)"
    assert [points(Estimate(each / 8, None, None, 8)) for each in (-2, 0, 0.5)] == ["-2 of 8", "+0 of 8", "+0.5 of 8"]
    assert points(Estimate(-0.0005, None, None, 8)) == "+0.0 of 8"
    assert counted(0.25, 2000) == "500 of 2,000"
    assert number(float("inf")) == number(None) == "undefined"
    assert "few problems" in intervals_note(19)
    assert "95 %" in intervals_note(20)


def test_text_stays_in_its_fence_whatever_it_is() -> None:
    text = "```python\n````\n# not a heading\x1b[2J \u202e\ud800\r\n<script>"
    shown = fenced(text)
    assert shown.startswith("`````text\n")
    assert shown.endswith("\n`````")
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    shown.encode("utf-8")
    assert printable("a\rb\x00\u2028") == "a\nb\\x00\\x2028"


def test_sentences_and_cells_are_no_markup() -> None:
    page = markdown_page(
        "A *run*",
        [
            Section("", ["see [x](http://y) and <b>`code`</b>\n\n# no heading _here_ but step_dpo, [2, 9, 1]"]),
            Section("Left out", []),
            Section("Cells", [Table(["", "a|b"], [[held("two words"), "`x`|y"]], "note")]),
        ],
    )
    assert page == (
        "# A \\*run\\*\n\n"
        "see [x\\](http://y) and \\<b>\\`code\\`\\</b> # no heading \\_here\\_ but step_dpo, [2, 9, 1]\n\n"
        "## Cells\n\nnote\n\n|  | a\\|b |\n| --- | ---: |\n| two words | \\`x\\`\\|y |\n"
    )
    assert markdown_table(["a", "b", "c"], [["1", "2", "3"]], words=2).splitlines()[1] == "| --- | --- | ---: |"
