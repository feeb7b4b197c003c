"""What policies write without search: counted by hand, compared, and merged over trainings."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradatim.errors import GradatimError
from gradatim.evaluation.written import Written, counts_of, written, written_difference
from gradatim.models import resolve_model
from gradatim.recipes import Recipe, Study, parse_recipe
from gradatim.recipes.study import Claim
from gradatim.run.comparing import Compared
from gradatim.run.replicating import judged, replicate
from gradatim.tree import EndReason, Problem, Step, Tree


def sampled() -> Tree:
    """Three draws of one right solution of two steps, one wrong of three tokens, one that was cut off."""
    tree = Tree(Problem("p", "?"))
    first = tree.add(tree.root, Step((1, 2), "ab"))
    for _ in range(3):
        leaf = tree.add(first, Step((3,), "c", end=EndReason.END_OF_TEXT))
    leaf.reward, leaf.correct, leaf.answer = 1.0, True, "c"
    wrong = tree.add(tree.root, Step((4, 5, 6), "def", end=EndReason.END_OF_TEXT))
    wrong.reward, wrong.correct, wrong.answer = 0.0, False, "f"
    tree.add(first, Step((7,), "g", end=EndReason.LENGTH))
    return tree


def test_samples_are_counted_as_often_as_they_were_drawn() -> None:
    assert counts_of(sampled()) == {"samples": 5, "right": 3, "distinct": 3, "tokens": 15 / 5}


def test_measures_are_those_of_all_subsets() -> None:
    counts = [[{"samples": 5, "right": right, "distinct": 2, "tokens": 3.0} for right in (0, 2, 5)]]
    found = written("x", counts)
    for k in (1, 2, 5):
        by_hand = [
            np.mean([any(place < right for place in chosen) for chosen in combinations(range(5), k)])
            for right in (0, 2, 5)
        ]
        assert found.measure(f"pass@{k}")[0] == pytest.approx(by_hand)
    assert found.measure("distinct").tolist() == [[0.4] * 3]
    assert found.measure("tokens").tolist() == [[3.0] * 3]
    with pytest.raises(GradatimError, match="not measured by 'pass@'"):
        found.measure("pass@")


def test_problems_that_were_not_sampled_equally_often_are_refused() -> None:
    one = {"samples": 5, "right": 1, "distinct": 1, "tokens": 1.0}
    with pytest.raises(GradatimError, match="sampled 4 to 5 times"):
        written("x", [[one, {**one, "samples": 4}]])


def policies(shift: int, seeds: int = 3, problems: int = 1000) -> list[Written]:
    generator = np.random.default_rng(0)
    right = generator.integers(0, 12, size=(seeds, problems)).astype(float)
    other = Written("plain", 16, right, right + 1, np.full((seeds, problems), 20.0))
    return [Written("trained", 16, right + shift, right + 1, np.full((seeds, problems), 18.0)), other]


@pytest.mark.parametrize(
    ("by", "shift", "problems", "verdict"),
    [
        ("pass@1", 1, 1000, "won"),
        ("pass@1", 1, 100, "leans won"),
        ("pass@1", 4, 100, "won"),
        ("pass@1", 0, 1000, "undecided"),
        ("distinct", 1, 1000, "undecided"),
        ("tokens", 0, 1000, "won"),
    ],
)
def test_a_claim_about_policies(by: str, shift: int, problems: int, verdict: str) -> None:
    found = Compared({}, [], [], policies(shift, problems=problems))
    claim = Claim(text="", first="trained", second="plain", by=by)
    assert judged(claim, found)["verdict"] == verdict
    if verdict == "won":
        reverse = Claim(text="", first="plain", second="trained", by=by)
        assert judged(reverse, found)["verdict"] == "lost"
    with pytest.raises(GradatimError, match="'none', which was not measured"):
        judged(Claim(text="", first="none", second="plain", by=by), found)


def test_a_difference_is_paired_over_problems() -> None:
    first, second = policies(1)
    test = written_difference(first, second, "pass@1")
    assert test.difference.value == pytest.approx(1 / 16)
    assert test.p < 0.001


STUDY: dict[str, Any] = {
    "kind": "study",
    "name": "tiny",
    "summary": "whether training changes anything",
    "prepare": {
        "trees": {"recipe": "quickstart", "set": ["problems.test=0"]},
        "trained": {
            "recipe": "quickstart",
            "set": ["search=null", "problems.validation=0", "trees.stored=prepared:trees"],
        },
        "unused": {"recipe": "quickstart"},
    },
    "comparison": {
        "task": {"name": "countdown", "seed": 1},
        "policy": {"model": "shipped:countdown", "sampling": {"max_step_tokens": 16, "max_steps": 4}},
        "models": {"trained": {"model": "prepared:trained/policy"}},
        "problems": {"test": 3},
        "policies": {"names": ["policy", "trained"], "samples": 4, "pass_at": [1, 4]},
    },
    "testbeds": {"all": []},
    "claims": [{"text": "training helps", "first": "trained", "second": "policy", "by": "pass@1"}],
    "smoke": {"training_seeds": [3, 4]},
    "full": {},
}


def test_a_study_of_policies_is_a_mean_over_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, str | None]] = []

    def run(recipe: Recipe, output: Path, **_: Any) -> None:
        ran.append((recipe.seed, recipe.trees.stored))
        output.mkdir(parents=True)
        (output / "policy").symlink_to(resolve_model("shipped:countdown"))
        (output / "report.json").write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))

    monkeypatch.setattr("gradatim.run.replicating.run_recipe", run)
    study = parse_recipe(STUDY, "tiny")
    assert isinstance(study, Study)
    assert study.prepared_for("all", "smoke") == ["trees", "trained"]
    (result,) = replicate([study], tmp_path, "smoke")["studies"]
    assert [seed for seed, _ in ran] == [3, 3, 4, 4]
    stored = [Path(place).name for _, place in ran if place is not None]
    assert len(set(stored)) == 2
    assert all(each.startswith("quickstart-") for each in stored)
    assert result["trainings"] == 2
    assert result["report"]["seeds"] == [3, 4]
    rows = result["report"]["policies"]["written"]
    assert [row["name"] for row in rows] == ["policy", "trained"]
    assert rows[0]["pass@1"] == rows[1]["pass@1"]  # the same weights draw the same
    assert result["claims"][0]["verdict"] == "undecided"
    parts = [json.loads((tmp_path / f"smoke/tiny/all/seed-{seed}/report.json").read_text()) for seed in (3, 4)]
    means = [part["policies"]["written"][0]["pass@1"]["value"] for part in parts]
    assert rows[0]["pass@1"]["value"] == pytest.approx(sum(means) / 2)
    page = (tmp_path / "report.md").read_text()
    assert "pass@1 minus that of policy" in page
    replicate([study], tmp_path, "smoke")
    assert len(ran) == 4
