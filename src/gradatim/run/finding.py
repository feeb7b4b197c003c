"""What a run found, in one to three sentences that its report begins with; all of it follows from the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.report import settings_text
from gradatim.run.stages import BASE, FINE_TUNED, FINE_TUNING, ONLINE

_BASE_POLICY = f"The {BASE} policy"


def finding(value: Mapping[str, Any]) -> list[str]:
    """The sentences; ``value`` is the content of ``report.json``."""
    names = list(value["policies"])
    if not names:
        return [_on_benchmark(each) for each in value["benchmarks"]] or ["Nothing was measured."]
    if not any(value[name]["right"] for name in names) and not any(row["accuracy"] for row in value["search"]):
        solutions = sum(value[name]["solutions"] for name in names)
        problems = wording.held_out(value[BASE]["problems"])
        return [f"Nothing was solved: none of {solutions:,} solutions of {problems} is right."]
    sentences = [_trained(value, name) for name in value["compared_with"]] or [f"{_solves(value, BASE, _BASE_POLICY)}."]
    best = _best_method(value)
    return [*sentences, best] if best else sentences


def _on_benchmark(each: Mapping[str, Any]) -> str:
    """The first figure of a benchmark, of the scorer and of scores by lot."""
    scorer, by_lot = list(each["figures"])[:2]
    name, value = next(iter(each["figures"][scorer].items()))
    chance = each["figures"][by_lot][name]
    if value is None or chance is None:
        return f"{each['title']}: there is nothing to measure in its data."
    return f"{each['title']}: {name} {value:.1f} % by {scorer}, {chance:.1f} % by scores by lot."


def training_helped(value: Mapping[str, Any], name: str) -> bool:
    """Whether any training of the policy ``name`` reached a better state than the one that it began with."""
    stages = FINE_TUNING if name == FINE_TUNED else ("policy-", ONLINE)
    records = [record for stage, record in value["stages"].items() if stage.startswith(stages)]
    return not records or any(record.get("best_update") != 0 for record in records)


def _trained(value: Mapping[str, Any], name: str) -> str:
    """A trained policy against the one that it came from."""
    before = value["compared_with"][name]
    if not training_helped(value, name):
        training = "Fine-tuning" if name == FINE_TUNED else f"Training by {name}"
        return (
            f"{training} did not help: the policy before it was the best state and is what was saved. "
            f"{_solves(value, before, f'The {before} policy')}."
        )
    pair = f"{_solves(value, name, name)}, {before} {_accuracy(value[before])}"
    difference = Estimate.from_json(value["comparison"][name]["pass@1"])
    if difference.low is None or difference.high is None or difference.few:
        return f"{pair}; so few problems show no difference."
    change = wording.points_in_words(difference)
    if difference.low > 0 or difference.high < 0:
        return f"{pair}: {change}."
    return f"No difference between {name} and {before} could be shown: {pair}, {change}."


def _solves(value: Mapping[str, Any], name: str, subject: str) -> str:
    result = value[name]
    problems = wording.held_out(result["problems"])
    if _few(result):
        return f"{subject} is right in {_accuracy(result)} sampled solutions of {problems}"
    return f"{subject} solves {_accuracy(result)} of {problems} with one sample"


def _accuracy(result: Mapping[str, Any]) -> str:
    if _few(result):
        return f"{result['right']:,} of {result['solutions']:,}"
    return f"{wording.percent(result['pass_at_1'])} %"


def _few(result: Mapping[str, Any]) -> bool:
    return Estimate.from_fields(result, "pass_at_1", result["problems"]).few


def _best_method(value: Mapping[str, Any]) -> str:
    """The best of what was compared at its cost, beside a single sample; the cheapest of equals."""
    single = next((row for row in value["search"] if row["method"] == "sampling"), None)
    others = [row for row in value["search"] if row is not single]
    if single is None or not others:
        return ""
    best = max(others, key=lambda row: (row["accuracy"], -row["tokens"]))
    if best["accuracy"] <= single["accuracy"]:
        return f"Of what was compared, nothing is better than one sample, for {single['tokens']:,.0f} tokens a problem."
    settings = settings_text(best["settings"])
    method = f"{best['method']} ({settings})"
    return (
        f"Of what was compared with the {value['searched']} policy, {method} is best: {_method_accuracy(best)} "
        f"for {best['tokens']:,.0f} tokens a problem, where one sample takes {single['tokens']:,.0f}."
    )


def _method_accuracy(row: Mapping[str, Any]) -> str:
    estimate = Estimate.from_fields(row, "accuracy", row["problems"])
    return wording.share(estimate) if estimate.few else f"{wording.percent(estimate.value)} %"
