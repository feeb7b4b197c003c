"""Many small rounds as one training: what they make, how they go on, go back, and are refused."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes import Recipe
from gradatim.run import Progress, online, run_recipe
from gradatim.run.stages import NO_RESULT, REPORT_ONLY, claims, dependencies, flat, stages_of
from gradatim.store import TreeStore
from small_runs import small_content, small_recipe

ONLINE: dict[str, Any] = {"problems": 2, "evaluate_every": 2, "save_every": 2, "samples": 2}
TRAINING: dict[str, Any] = {"learning_rate": 1e-3, "tokens_per_batch": 256, "warmup_ratio": 0}
POLICY: dict[str, Any] = {
    "objective": "step_dpo", "data": [{"name": "sibling_pairs", "pairing": "all"}], "training": TRAINING,
}  # fmt: skip


def recipe(*, rounds: int = 4, learn: list[dict[str, Any]] | None = None, **changes: Any) -> Recipe:
    """Few problems and shallow trees; nothing is measured in the end."""
    content = small_content(judge=None, objective=None)
    changed = {
        "problems": {"train": 6, "validation": 2, "test": 0},
        "search": {"name": "grow", "branching": [4, 2, 1]},
        "online": ONLINE | changes.pop("online", {}),
        "rounds": rounds,
        "learn": [POLICY] if learn is None else learn,
    }
    return small_recipe(judge=None, objective=None, **{**content, **changed, **changes})


def run(recipe: Recipe, folder: Path) -> str:
    """Run it; returns what a person saw."""
    seen = io.StringIO()
    run_recipe(recipe, folder, progress=Progress(Console(file=seen, width=400)))
    return seen.getvalue()


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the journal without times."""
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        line.get("evaluation", {}).pop("seconds", None)
    return [{key: value for key, value in line.items() if key not in ("at", "seconds")} for line in lines]


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def scripted(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> Iterator[float]:
    """Let the evaluations find these accuracies, one after the other."""
    found = iter(accuracies)
    monkeypatch.setattr(online, "sampled_accuracy", lambda *_: (next(found), 10))
    return found


def interrupted(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C while the trees of a round are grown."""
    seed = online.Run.seed

    def pressed(self: Any, name: str) -> int:
        if name == f"trees {number}":
            raise KeyboardInterrupt
        return seed(self, name)

    monkeypatch.setattr(online.Run, "seed", pressed)


def test_rounds_are_one_training_with_a_journal_trees_checkpoints_and_a_report(tmp_path: Path) -> None:
    seen = run(recipe(problems={"train": 6, "validation": 2, "test": 2}), tmp_path)
    assert "Learning online: 4 of 4 rounds" in seen
    assert "tokens/s" in seen
    rounds = rounds_of(tmp_path)
    assert [each["round"] for each in rounds] == [0, 1, 2, 3, 4]
    assert [each["round"] for each in rounds if "evaluation" in each] == [0, 2, 4]
    rates = [each["learned"][0]["learning_rate"] for each in rounds[1:] if each["learned"][0]["updates"]]
    assert rates[0] == TRAINING["learning_rate"]
    assert rates == sorted(rates, reverse=True), "one schedule spans all rounds"
    with TreeStore(tmp_path / "trees" / "rounds.jsonl") as store:
        assert len(store) == 8
        taken = [id.partition(", round ")[0] for id in store.ids()]
        assert len(set(taken[:6])) == len(set(taken[6:] + taken[4:6])) + 2 == 6, "all take their turns"
        sources = {id: store.get(id).nodes[-1].step.source for id in store.ids()}  # type: ignore[union-attr]
        assert len(set(sources.values())) == 4, "each round was grown with other weights"
        generated = sum(tree.budget.written("policy") for tree in store)
    assert (tmp_path / "policy" / "model.safetensors").is_file()
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "online").iterdir()) == ["round-2", "round-4"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["online"]["generated"] == generated == report["online"]["points"][-1]["generated"]
    assert report["online"]["evaluation_tokens"] == sum(each["evaluation"]["tokens"] for each in rounds[::2])
    assert [point["round"] for point in report["online"]["points"]] == [0, 2, 4]
    assert {"base", "step_dpo"} <= report.keys()
    page = (tmp_path / "report.md").read_text()
    assert "## Rounds" in page
    assert "plots/accuracy-against-generated-tokens.png" in page
    assert "all done before" in run(recipe(problems={"train": 6, "validation": 2, "test": 2}), tmp_path)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert ", round 1, one of 8 in " in shown.output
    rows = CliRunner().invoke(
        app, ["export", str(tmp_path), "--data", "sibling_pairs", "--output", str(tmp_path / "rows.jsonl")]
    )
    assert "from 8 trees" in rows.output


def test_an_interrupted_run_loses_the_round_under_way_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed runs are in ``killed_runs.py``; here a stop comes behind the last checkpoint, and adapters are on."""
    lora = [POLICY | {"reference": "initial", "training": TRAINING | {"lora": {"rank": 2, "dropout": 0.1}}}]
    learning = recipe(learn=lora, online={"reuse": 1, "keep": "last"})
    run(learning, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupted(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            run(learning, tmp_path / "stopped")
    before = rounds_of(tmp_path / "stopped")
    assert len(before) == 4
    assert not (tmp_path / "stopped" / "policy").exists()
    seen = run(learning, tmp_path / "stopped")
    assert "4 of 4 rounds (2 of them before)" in seen, "one round is learned from again"
    assert rounds_of(tmp_path / "stopped") == rounds_of(tmp_path / "whole")
    assert rounds_of(tmp_path / "stopped")[:4] == before
    assert digest(tmp_path / "stopped" / "policy") == digest(tmp_path / "whole" / "policy")
    assert digest(tmp_path / "whole" / "policy") != digest(Path(resolve_model("shipped:countdown")))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = recipe(rounds=3, online={"save_every": 1, "keep": "last"}, problems={"train": 6, "test": 0})
    run(learning, tmp_path / "whole")
    interrupted(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(learning, tmp_path / "damaged")
    monkeypatch.undo()
    weights = tmp_path / "damaged" / "checkpoints" / "online" / "round-2" / "policy.optimizer.pt"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"round-2' is passed over: policy\.optimizer\.pt cannot be read"):
        run(learning, tmp_path / "damaged")
    assert digest(tmp_path / "damaged" / "policy") == digest(tmp_path / "whole" / "policy")


def test_what_is_kept_is_the_best_and_a_loss_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {"evaluate_every": 1}
    scripted(monkeypatch, 0.5, 0.6, 0.4, 0.3)
    run(recipe(rounds=3, online=every | {"keep": "last"}), tmp_path / "last")
    assert not any("rolled_back_to" in each for each in rounds_of(tmp_path / "last"))
    scripted(monkeypatch, 0.5, 0.6, 0.4, 0.3)
    run(recipe(rounds=3, online=every), tmp_path / "best")
    assert digest(tmp_path / "best" / "policy") != digest(tmp_path / "last" / "policy")
    record = json.loads((tmp_path / "best" / "stages" / "online.json").read_text())
    assert record["best_round"] == 1
    scripted(monkeypatch, 0.5, 0.6, 0.4, 0.55)
    run(recipe(rounds=3, online=every | {"roll_back": 0.1}), tmp_path / "back")
    assert [each.get("rolled_back_to") for each in rounds_of(tmp_path / "back")] == [None, None, 1, None]
    assert digest(tmp_path / "back" / "policy") == digest(tmp_path / "best" / "policy")
    assert "Rolled back after rounds: 2 to 1." in (tmp_path / "back" / "report.md").read_text()
    scripted(monkeypatch, 0.5, 0.4, 0.3, 0.2)
    run(recipe(rounds=3, online=every), tmp_path / "none")
    base, kept = (
        load_file(Path(folder) / "model.safetensors")
        for folder in (resolve_model("shipped:countdown"), tmp_path / "none" / "policy")
    )
    assert all(bool((base[name] == value).all()) for name, value in kept.items())


def test_several_models_learn_side_by_side_and_are_used_as_they_are_by_then(tmp_path: Path) -> None:
    judge = {"model": "scorer", "objective": "process_reward", "data": ["step_labels"], "training": TRAINING}
    learning = recipe(
        rounds=3,
        models={"scorer": {"model": "shipped:countdown-reward"}},
        scorer="process_reward",
        learn=[judge, POLICY],
        online={"keep": "last"},
        evaluation={"samples": 2, "scorer": "process_reward", "in_flight": 1},
    )
    run(learning, tmp_path)
    for each in rounds_of(tmp_path)[1:]:
        assert [entry["model"] for entry in each["learned"]] == ["scorer", "policy"]
        assert each["tokens"].keys() == {"policy", "scorer"}
    assert digest(tmp_path / "scorer") != digest(Path(resolve_model("shipped:countdown-reward")))
    assert (tmp_path / "scorer" / "step_scoring.json").is_file()
    names = {path.name for path in (tmp_path / "checkpoints" / "online" / "round-2").iterdir()}
    assert {"scorer.safetensors", "scorer.optimizer.pt", "policy.safetensors", "policy.optimizer.pt"} <= names
    with TreeStore(tmp_path / "trees" / "rounds.jsonl") as store:
        assert all("process_reward" in node.scores for tree in store for node in tree.nodes[1:])


def test_a_head_on_the_policy_learns_with_it_in_lower_precision(tmp_path: Path) -> None:
    policy = small_content()["policy"] | {"dtype": "bfloat16"}
    svpo = POLICY | {"objective": "svpo", "training": TRAINING | {"lora": {"rank": 2}}}
    learning = recipe(rounds=2, policy=policy, learn=[svpo], scorer="value_head")
    run(learning, tmp_path)
    assert (tmp_path / "policy" / "heads.safetensors").is_file()
    with TreeStore(tmp_path / "trees" / "rounds.jsonl") as store:
        values = [node.scores["value_head"] for tree in store for node in tree.nodes[1:]]
    assert values[0] == 0.5, "a new head says one half"
    assert set(values[-4:]) != {0.5}


def test_rounds_without_anything_to_learn_are_passed_over_and_too_many_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [POLICY | {"data": [{"name": "sibling_pairs", "min_gap": 1.0}]}]
    run(recipe(rounds=3, learn=few, online={"problems": 1}), tmp_path / "few")
    learned = [each["learned"][0]["updates"] for each in rounds_of(tmp_path / "few")[1:]]
    assert 0 in learned
    assert sum(learned) > 0
    monkeypatch.setattr(online, "_PATIENCE", 2)
    none = [POLICY | {"data": [{"name": "sibling_pairs", "min_gap": 2.0}]}]
    with pytest.raises(
        GradatimError, match=r"the trees hold no pairs of steps to learn from: learn\.0\.data\.0\.min_gap"
    ):
        run(recipe(rounds=3, learn=none), tmp_path / "none")


def test_a_change_of_the_recipe_sets_the_rounds_aside_and_how_often_is_saved_does_not(tmp_path: Path) -> None:
    small: dict[str, Any] = {"rounds": 1, "problems": {"train": 4, "test": 0}}
    small["online"] = {"problems": 4}
    run(recipe(**small), tmp_path)
    assert "all done before" in run(recipe(**small | {"online": {"problems": 4, "save_every": 7}}), tmp_path)
    seen = run(recipe(**small | {"online": {"problems": 4, "updates": 2}}), tmp_path)
    assert "The stage online is done anew: online.updates was 1 and is now 2" in seen
    aside = tmp_path / "superseded" / "online-1"
    assert {path.name for path in aside.iterdir()} == {"rounds.jsonl", "trees", "policy", "stage.json"}


def test_every_key_of_an_online_recipe_has_its_place() -> None:
    learning = recipe(
        problems={"train": 6, "validation": 2, "test": 2},
        models={"scorer": {"model": "shipped:countdown-reward"}},
        scorer="process_reward",
        evaluation={"scorer": "process_reward", "search": ["beam"]},
    )
    keys = dict(flat(learning.model_dump(mode="json")))
    claimed = {key for name in stages_of(learning) for key in dependencies(learning, name)}
    assert [name for name, stage in stages_of(learning).items() if stage.learns] == ["online"]
    for key in keys:
        places = [key in claimed, NO_RESULT.fullmatch(key) is not None, claims(REPORT_ONLY, key) and key != "rounds"]
        assert sum(places) == 1, f"{key}: a stage depends on it, or no result does, or the report alone; {places}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"online": {"problems": 7}}, "online.problems takes 7 of 6 problems: raise problems.train"),
        ({"online": {"roll_back": 0.1}, "problems": {"train": 6, "test": 0}}, "set problems.validation"),
        ({"learn": []}, "online is for what learns from grown trees"),
        ({"learn": [POLICY | {"rounds": "first"}]}, "online all learn in every round: leave rounds out"),
        ({"learn": [POLICY | {"begin": "first"}]}, "online each goes on from the one before: leave begin out"),
        ({"learn": [POLICY | {"stop_by": "accuracy"}]}, "learn.0.stop_by is of a training of its own"),
        (
            {"learn": [POLICY | {"training": {"patience": 3}}]},
            r"training.patience is not of an online training \(online",
        ),
        ({"learn": [POLICY | {"training": {"epochs": 1.5}}]}, "whole passes over the trees of a round, not 1.5"),
        ({"online": {"reuse": 1}}, "with online.reuse they are of several policies: set it to initial"),
        ({"learn": [POLICY | {"training": {"lora": {}}}] * 2}, "online trains policy 2 times, with adapters"),
        ({"online": {"rounds": 3}}, "unknown key 'rounds' in 'online'"),
        ({"policy": {"model": "shipped:countdown", "engine": "vllm"}}, "the transformers engine alone allows"),
        ({"policy": {"model": "shipped:countdown", "device_map": "auto"}}, "leave policy.device_map out"),
    ],
)
def test_what_cannot_be_rounds_of_one_training_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((GradatimError, ValidationError), match=message):
        recipe(**changes)
