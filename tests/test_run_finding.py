"""The sentences that a report begins with, from its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gradatim.evaluation import Cost, MethodResult, Report, Sample, bootstrap_difference, method_result, policy_result
from gradatim.run.finding import finding


def value(
    before: Sequence[int], after: Sequence[int] | None = None, best_update: int = 3, searches: Sequence[float] = ()
) -> dict[str, Any]:
    """The content of a report: how many of four samples of each problem are right before and after training."""
    policies = {"base": before} if after is None else {"base": before, "dpo": after}
    results = {
        name: policy_result(
            [[Sample(float(place < right), None) for place in range(4)] for right in counts],
            [40.0] * len(counts),
            counts=[1],
        )
        for name, counts in policies.items()
    }
    report = Report("A run", policies=results, search=[method(result, len(before)) for result in searches])
    compared = {} if after is None else {"dpo": {"pass@1": difference(before, after)}}
    return {
        **report.to_json(),
        "comparison": compared,
        "compared_with": dict.fromkeys(compared, "base"),
        "searched": "base",
        "stages": {"policy-1": {"best_update": best_update}, "round-1": {}},
    }


def method(accuracy: float, problems: int) -> MethodResult:
    """Of accuracy 0.25, a single sample; of any other, a beam search that costs so many tokens."""
    spending = {"policy": Cost(written=1000 * accuracy)}
    name, settings = ("sampling", {"n": 1}) if accuracy == 0.25 else ("beam search", {"width": [2, 1], "branch": 4})
    return method_result(name, "none", [accuracy] * problems, [spending] * problems, settings=settings)


def difference(before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    return bootstrap_difference([count / 4 for count in before], [count / 4 for count in after]).to_json()


def test_better_policy_and_best_method() -> None:
    sentences = finding(value([1] * 40, [2] * 39 + [1], searches=[0.25, 0.5, 0.75]))
    assert sentences == [
        "dpo solves 49.4 % of 40 held-out problems with one sample, base 25.0 %: +24.4 points (+23.1 to +25.0).",
        "Of what was compared with the base policy, beam search (width [2, 1], branch 4) is best: 75.0 % "
        "for 750 tokens a problem, where one sample takes 250.",
    ]


def test_worse_policy_is_said_as_plainly() -> None:
    assert finding(value([2] * 40, [1] * 40)) == [
        "dpo solves 25.0 % of 40 held-out problems with one sample, base 50.0 %: -25.0 points (-25.0 to -25.0)."
    ]


def test_difference_that_could_be_chance() -> None:
    (sentence,) = finding(value([1, 3] * 20, [3, 1] * 20))
    assert sentence.startswith(
        "No difference between dpo and base could be shown: dpo solves 50.0 % of 40 held-out problems with one "
        "sample, base 50.0 %, +0.0 points ("
    )


@pytest.mark.parametrize("problems", [4, 40])
def test_training_that_did_not_help(problems: int) -> None:
    sentence = finding(value([1] * problems, [1] * problems, best_update=0))[0]
    assert sentence.startswith("Training by dpo did not help: the policy before it was the best state and is what was")
    assert "+0.0" not in sentence
    assert ("solves 25.0 % of 40 held-out" in sentence) == (problems == 40)
    assert ("is right in 4 of 16 sampled solutions of 4 held-out problems" in sentence) == (problems == 4)


def test_few_problems_show_no_difference() -> None:
    assert finding(value([1], [4])) == [
        "dpo is right in 4 of 4 sampled solutions of 1 held-out problem, base 1 of 4; so few problems show no "
        "difference."
    ]
    assert finding(value([1, 3], searches=[0.25, 1.0])) == [
        "The base policy is right in 4 of 8 sampled solutions of 2 held-out problems.",
        "Of what was compared with the base policy, beam search (width [2, 1], branch 4) is best: 2 of 2 "
        "for 1,000 tokens a problem, where one sample takes 250.",
    ]


def test_nothing_better_than_one_sample_and_nothing_solved() -> None:
    assert finding(value([1] * 40, searches=[0.25, 0.1]))[-1] == (
        "Of what was compared, nothing is better than one sample, for 250 tokens a problem."
    )
    assert finding(value([0] * 40, [0] * 40)) == [
        "Nothing was solved: none of 320 solutions of 40 held-out problems is right."
    ]


def test_every_policy_is_told_against_the_one_that_it_was_trained_from() -> None:
    fine_tuned = value([0] * 40, [2] * 40)
    told = {
        **fine_tuned,
        "policies": ["base", "fine_tuned", "step_dpo"],
        "fine_tuned": fine_tuned["dpo"],
        "step_dpo": value([0] * 40, [3] * 40)["dpo"],
        "comparison": {
            "fine_tuned": {"pass@1": difference([0] * 40, [2] * 40)},
            "step_dpo": {"pass@1": difference([2] * 40, [3] * 40)},
        },
        "compared_with": {"fine_tuned": "base", "step_dpo": "fine_tuned"},
        "searched": "fine_tuned",
        "stages": {"fine-tuning": {"best_update": 4}, "policy-1": {"best_update": 3}},
    }
    first, second = finding(told)
    assert first.startswith("fine_tuned solves 50.0 % of 40 held-out problems with one sample, base 0.0 %: +50.0 ")
    assert second.startswith("step_dpo solves 75.0 % of 40 held-out problems with one sample, fine_tuned 50.0 %: +25.")
    first, second = finding({**told, "stages": {"fine-tuning": {"best_update": 4}, "policy-1": {"best_update": 0}}})
    assert first.startswith("fine_tuned solves 50.0 %")
    assert second.startswith("Training by step_dpo did not help")
    assert "The fine_tuned policy solves 50.0 %" in second
