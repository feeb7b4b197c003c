"""Claims of papers: the studies that ship, and what a verdict rests on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.evaluation.compare import Cost
from gradatim.evaluation.equal_compute import Curve, Point, curve
from gradatim.evaluation.metrics import auc
from gradatim.evaluation.steps import ScoredStates
from gradatim.recipes import Study, load_as, load_recipe, parse_recipe, shipped_recipes, shipped_studies
from gradatim.recipes.measured import measured_results, trained_by
from gradatim.recipes.study import Claim, Size, compared_by
from gradatim.run.comparing import Compared
from gradatim.run.comparison_report import JudgedSteps
from gradatim.run.replicating import auc_difference, judged, replicate

SIZES: tuple[Size, ...] = ("smoke", "full")


@pytest.mark.parametrize("name", shipped_studies())
def test_every_study_that_ships_prepares_recipes_that_there_are_and_claims_what_it_compares(name: str) -> None:
    study = load_as(Study, name)
    prepared = {each: f"/prepared/{each}" for each in study.prepare}
    for size in SIZES:
        for each, preparation in study.prepare.items():
            recipe = load_recipe(preparation.recipe, study.overrides(each, size))
            assert not isinstance(recipe, Study)
        for testbed in study.testbeds_at(size):
            comparison = study.comparison_on(testbed, size, prepared)
            for claim in study.claims:
                assert {claim.first, claim.second} <= set(compared_by(comparison, claim.by)[1])
                if claim.by == "auc":
                    assert comparison.judge_steps
            if size == "full" and comparison.scorers:
                assert comparison.problems.validation


def test_a_result_is_one_of_the_recipe_that_trained_what_it_is_about() -> None:
    labels, progress, trained = (load_as(Study, name) for name in ("labels", "progress", "search-or-train"))

    def recipes(study: Study, first: str, by: str) -> list[str]:
        names = {name: f"prepared:{name}" for name in study.prepare}
        comparison = study.comparison_on("countdown", "full", names)
        return trained_by(study, comparison, {"first": first, "by": by})

    assert recipes(labels, "ranking", "auc") == ["verifiers"]
    assert recipes(progress, "beam by progress, best-of-one", "accuracy") == ["provers", "verifiers"]
    assert recipes(trained, "trained policy, majority", "accuracy") == ["quickstart"]
    assert recipes(trained, "beam", "accuracy") == ["quickstart"]  # its reward model was trained there


def test_what_was_measured_last_is_of_recipes_that_ship() -> None:
    found = measured_results()
    assert found
    assert found.keys() <= shipped_recipes().keys()
    assert all(any(word in text for word in ("won", "lost", "undecided", "mixed")) for text in found.values())


def test_names_of_studies_are_no_names_of_recipes() -> None:
    from gradatim.recipes import shipped_recipes

    assert not shipped_studies().keys() & shipped_recipes().keys()


STUDY: dict[str, Any] = {
    "kind": "study",
    "name": "tiny",
    "summary": "whether two are more than one",
    "comparison": {
        "task": {"name": "countdown", "seed": 1},
        "policy": {"model": "shipped:countdown", "sampling": {"max_step_tokens": 16, "max_steps": 4}},
        "models": {"scorer": {"model": "shipped:countdown-reward"}},
        "problems": {"test": 4},
        "scorers": {"reward": "process_reward", "sure": "uncertainty"},
        "methods": [
            {"name": "best of n", "search": "sampling", "scorer": "reward", "choose_by": "score", "sizes": [1, 2]},
            {"name": "majority", "search": "sampling", "choose_by": "majority", "sizes": [2, 4]},
        ],
    },
    "testbeds": {"easy": ["task.least_ways=33"], "all": []},
    "claims": [
        {"text": "best of n beats votes", "first": "best of n", "second": "majority"},
        {"text": "a trained scorer judges better", "first": "reward", "second": "sure", "by": "auc"},
    ],
    "smoke": {"testbeds": ["easy"]},
    "full": {},
}


def study(**changes: Any) -> Study:
    made = parse_recipe(STUDY | changes, "tiny")
    assert isinstance(made, Study)
    return made


def test_a_study_is_run_reported_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = replicate([study()], tmp_path, "smoke")
    (result,) = report["studies"]
    assert (result["study"], result["testbed"], result["size"]) == ("tiny", "easy", "smoke")
    assert [claim["verdict"] for claim in result["claims"]] == ["undecided", result["claims"][1]["verdict"]]
    page = (tmp_path / "report.md").read_text()
    assert "best of n beats votes" in page
    pictures = [line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert pictures
    assert all((tmp_path / picture).is_file() for picture in pictures)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is searched again")

    monkeypatch.setattr("gradatim.run.comparing.search_into", refuse)
    again = replicate([study()], tmp_path, "smoke")
    assert again["studies"][0]["claims"] == result["claims"]


def line(name: str, *points: tuple[float, float]) -> Curve:
    """Solved on every one of 40 problems to the given degree."""
    import numpy as np

    made = [Point(np.full((1, 40), solved), {"policy": Cost(written=tokens)}) for tokens, solved in points]
    return curve(name, "none", made)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([(100, 0.8), (200, 0.9)], [(50, 0.5), (400, 0.6)], "won"),
        ([(100, 0.2), (200, 0.3)], [(50, 0.5), (400, 0.6)], "lost"),
        ([(100, 0.2), (200, 0.9)], [(50, 0.5), (400, 0.6)], "mixed"),
        ([(100, 0.5), (200, 0.5)], [(50, 0.5), (400, 0.5)], "undecided"),
        ([(100, 0.5)], [(200, 0.5), (400, 0.5)], "not measured"),
        ([(100, 0.58)], [(50, 0.5), (400, 0.5)], "leans won"),  # one seed and 40 problems
    ],
)
def test_a_claim_is_won_or_lost_by_what_differs_at_equal_tokens(
    first: list[tuple[float, float]], second: list[tuple[float, float]], verdict: str
) -> None:
    found = Compared({}, [line("first", *first), line("second", *second)], [])
    assert judged(Claim(text="", first="first", second="second"), found)["verdict"] == verdict


def test_a_difference_that_was_not_shown_does_not_make_a_small_one_a_win() -> None:
    """All 40 problems are solved a little oftener at one size; at the other, some are won altogether and some lost."""
    import numpy as np

    second = line("second", (50, 0.5), (400, 0.5))
    large = np.full((1, 40), 0.5)
    large[0, :14] = 1.0
    large[0, 14:19] = 0.0
    points = [
        Point(each, {"policy": Cost(written=tokens)}) for tokens, each in ((100, np.full((1, 40), 0.55)), (200, large))
    ]
    found = Compared({}, [curve("first", "none", points), second], [])
    result = judged(Claim(text="", first="first", second="second"), found)
    assert [each["verdict"] for each in result["differences"]] == ["better", "undecided"]
    assert result["verdict"] == "leans won"


def test_a_claim_about_what_was_not_run_is_an_error() -> None:
    found = Compared({}, [line("first", (100, 0.5))], [])
    with pytest.raises(GradatimError, match="'third', which was not run"):
        judged(Claim(text="", first="first", second="third"), found)
    assert judged(Claim(text="", first="first", second="second", by="auc"), found) == {"verdict": "not measured"}


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        ({"text": "", "first": "best of n", "second": "majorty"}, "'majorty', which is not compared; did you mean"),
        (
            {"text": "", "first": "reward", "second": "majority", "by": "auc"},
            "scorer 'majority', which is not compared",
        ),
    ],
)
def test_a_claim_about_what_is_not_compared_is_told_before_anything_runs(
    claim: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(GradatimError, match=sentence):
        replicate([study(), study(claims=[claim])], tmp_path, "smoke")
    assert not any(tmp_path.iterdir())


def states(generator: random.Random, noise: float) -> list[ScoredStates]:
    found = []
    for _ in range(30):
        labels = tuple(generator.random() < 0.5 for _ in range(8))
        scores = tuple(float(label) + noise * generator.gauss(0, 1) for label in labels)
        found.append(ScoredStates(labels, scores))
    return found


def test_scorers_differ_by_their_auc_over_the_same_problems() -> None:
    good, poor = states(random.Random(0), 0.3), states(random.Random(0), 3.0)
    difference = auc_difference(poor, good)
    assert difference is not None
    assert difference.low is not None

    def whole(judged_states: list[ScoredStates]) -> float:
        found = auc(
            [label for each in judged_states for label in each.labels],
            [score for each in judged_states for score in each.scores],
        )
        assert found is not None
        return found

    assert difference.value == pytest.approx(whole(good) - whole(poor))
    assert difference.low > 0
    close = states(random.Random(0), 0.4)
    near = Compared({}, [], [JudgedSteps("good", good, [], "reachable"), JudgedSteps("near", close, [], "reachable")])
    assert judged(Claim(text="", first="good", second="near", by="auc"), near)["verdict"] == "leans won"
    compared = Compared(
        {},
        [],
        [JudgedSteps("good", good, [], "reachable"), JudgedSteps("poor", poor, [], "reachable")],
    )
    assert judged(Claim(text="", first="good", second="poor", by="auc"), compared)["verdict"] == "won"
    assert judged(Claim(text="", first="poor", second="good", by="auc"), compared)["verdict"] == "lost"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"smoke": {"testbeds": ["esy"]}}, "not in testbeds"),
        ({"smoke": {"prepare": {"x": []}}}, "not in prepare"),
        ({"claims": []}, "at least 1"),
        ({"testbeds": {}}, "at least 1"),
    ],
)
def test_what_is_no_study_is_said(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GradatimError, match=sentence):
        study(**changes)


def test_a_preparation_that_is_not_there_is_said() -> None:
    content = {**STUDY["comparison"], "models": {"scorer": {"model": "prepared:none/scorer"}}}
    with pytest.raises(GradatimError, match="'none', which the study does not have"):
        study(comparison=content).comparison_on("all", "full", {})
