"""What a comparison says of policies without search: the table, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.equal_compute import SIGNIFICANT, holm
from gradatim.evaluation.page import Section, Table
from gradatim.evaluation.written import Written, written_difference
from gradatim.proportions import DISTINCT, PASS, TOKENS
from gradatim.recipes.comparison import Comparison

_FIRST = f"{PASS}1"


def policies_content(comparison: Comparison, policies: Sequence[Written]) -> dict[str, Any] | None:
    """The figures of each policy, and how the others differ from the first; ``None`` where none are compared."""
    if comparison.policies is None or not policies:
        return None
    seed, measures = comparison.seeds[0], comparison.policies.measures
    tests = [written_difference(each, policies[0], _FIRST, seed=seed) for each in policies[1:]]
    return {
        "samples": policies[0].samples,
        "measures": measures,
        "written": [
            {
                "name": each.name,
                "seed_deviation": each.seed_deviation(_FIRST),
                **{name: each.estimate(name, seed=seed).to_json() for name in measures},
            }
            for each in policies
        ],
        "differences": [
            {**test.to_json(), "p_corrected": p}
            for test, p in zip(tests, holm([test.p for test in tests]), strict=True)
        ],
    }


def policies_sections(value: Mapping[str, Any]) -> list[Section]:
    """The table; ``value`` is the content of ``report.json``."""
    found = value.get("policies")
    if found is None:
        return []
    tests = {test["policy"]: test for test in found["differences"]}
    first = found["written"][0]["name"]
    header = ["policy", *found["measures"], f"{_FIRST} minus that of {first}", "p", "sd of seeds"]
    rows = []
    for each in found["written"]:
        test, deviation = tests.get(each["name"]), each["seed_deviation"]
        figures = [_shown(name, Estimate.from_json(each[name])) for name in found["measures"]]
        against = ["", ""]
        if test is not None:
            difference = Estimate.from_fields(test, "difference", test["problems"])
            against = [wording.points(difference), f"{test['p_corrected']:.3f}"]
        rows.append([each["name"], *figures, *against, "" if deviation is None else f"{100 * deviation:.1f}"])
    note = (
        f"{found['samples']} solutions sampled for each problem; {wording.intervals_note(value['problems'])}; "
        f"{DISTINCT} is the share of them that differ, {TOKENS} the length of one; p by flipping signs, corrected for "
        f"{len(tests)} tests (Holm)"
    )
    return [Section("Policies", [Table(header, rows, note, narrow=2)])]


def policies_finding(found: Mapping[str, Any], problems: int) -> list[str]:
    """What the table says, in sentences."""
    best = max(found["written"], key=lambda each: each[_FIRST]["value"])
    first = found["written"][0]["name"]
    sentences = [
        f"Of {len(found['written'])} policies, {best['name']} is right most often on {wording.held_out(problems)}: "
        f"{wording.percent(best[_FIRST]['value'])} %."
    ]
    sure = [test for test in found["differences"] if test["p_corrected"] < SIGNIFICANT]
    for word, sign in (("more", 1), ("less", -1)):
        if names := [test["policy"] for test in sure if sign * test["difference"] > 0]:
            sentences.append(f"Right {word} often than {first}: {'; '.join(names)}.")
    return sentences


def _shown(measure: str, estimate: Estimate) -> str:
    return f"{estimate.value:.1f}" if measure == TOKENS else wording.share(estimate)
