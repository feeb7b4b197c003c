"""What a changed recipe does to a run that is there: what does not depend on the change is used again."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from gradatim.cli.advice import in_words_of
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes import Recipe, load_recipe, shipped_recipes
from gradatim.run import Progress, run_recipe
from gradatim.run.contents import contents as contents_of
from gradatim.run.stages import NO_RESULT, REPORT_ONLY, claims, dependencies, first_difference, flat, stages_of
from gradatim.store import TreeStore
from gradatim.store.published import read_published
from gradatim.tree import Problem, Tree
from gradatim.values.base import VALUE
from small_runs import small_content, small_recipe

SMALL: dict[str, Any] = {"problems": {"train": 3, "test": 3}, "judge": None, "objective": None}
SAMPLED = {"samples": 4, "pass_at": [1, 4], "best_of": [1], "majority": [4], "in_flight": 1}


def run(recipe: Recipe, folder: Path) -> str:
    """Run it; returns what a person saw."""
    seen = io.StringIO()
    run_recipe(recipe, folder, progress=Progress(Console(file=seen, width=400)))
    return seen.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (folder / "trees").glob("*.jsonl")}


def redone(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "superseded").glob("*"))


def full_recipe() -> Recipe:
    """A recipe with every section, so that every key is there."""
    lora = {"lora": {"rank": 4}}
    prover = {"name": "rollouts", "model": "prover"}
    content = small_content(demonstrations={"demonstrations": 3}, scorer=prover, rounds=2)
    content["learn"] = [learn | {"training": learn.get("training", {}) | lora} for learn in content["learn"]]
    content["policy"] |= {"chat": {"system": "s"}}
    content["models"]["prover"] = {"model": "shipped:countdown"}
    content["evaluation"]["search"] += [{"mcts": {"simulations": 2}}]
    return small_recipe(judge=None, objective=None, **content)


def test_every_key_of_a_recipe_has_its_place() -> None:
    recipe = full_recipe()
    keys = dict(flat(recipe.model_dump(mode="json")))
    claimed = {key for name in stages_of(recipe) for key in dependencies(recipe, name)}
    for key in keys:
        places = [key in claimed, NO_RESULT.fullmatch(key) is not None, claims(REPORT_ONLY, key)]
        assert sum(places) == 1, f"{key}: a stage depends on it, or no result does, or the report alone; {places}"


def test_every_shipped_recipe_has_stages() -> None:
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if isinstance(recipe, Recipe):
            for stage in stages_of(recipe):
                assert dependencies(recipe, stage)["seed"] == recipe.seed


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"summary": "other"}, []),
        ({"policy.max_branches": 3}, []),
        ({"problems.test": 9}, []),
        ({"evaluation.majority": [2]}, []),
        ({"evaluation.samples": 5}, ["evaluate-base", "evaluate-step-dpo"]),
        ({"evaluation.budget": 100}, ["search-beam-width-2-branch-2"]),
        ({"learn.1.objective.beta": 0.7}, ["policy-1", "evaluate-step-dpo", "evaluate-step-dpo-greedy"]),
        ({"learn.1.data.0.min_gap": 0.3}, ["policy-1", "evaluate-step-dpo", "evaluate-step-dpo-greedy"]),
        (
            {"learn.0.training.epochs": 2},
            ["scorer-1", "evaluate-base", "evaluate-step-dpo", "search-beam-width-2-branch-2"],
        ),
        ({"search.rollouts": 3}, [name for name in stages_of(small_recipe()) if name != "evaluate-base-greedy"]),
        (
            {"regrow": ["controlled_errors"]},
            [name for name in stages_of(small_recipe()) if name != "evaluate-base-greedy"],
        ),
        ({"seed": 4}, list(stages_of(small_recipe()))),
        ({"task.largest_number": 15}, list(stages_of(small_recipe()))),
    ],
)
def test_a_change_concerns_the_stages_that_depend_on_it(change: dict[str, Any], anew: list[str]) -> None:
    content = small_recipe().model_dump(mode="json")
    for key, value in change.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[int(section) if isinstance(place, list) else section]
        place[last] = value
    before, after = small_recipe(), small_recipe(judge=None, objective=None, **content)
    changed = [
        name
        for name in stages_of(before)
        if first_difference(dependencies(before, name), dependencies(after, name)) is not None
    ]
    assert sorted(changed) == sorted(anew)


def test_runs_that_were_made_before_a_list_was_a_key_go_on() -> None:
    now = dependencies(small_recipe(), "round-1")
    assert now["regrow"] == []
    earlier = {key: value for key, value in now.items() if key != "regrow"}
    assert first_difference(earlier, now) is first_difference(now, earlier) is None
    other = dependencies(small_recipe(regrow=["controlled_errors"]), "round-1")
    assert first_difference(earlier, other) == "regrow.0.name was not set and is now controlled_errors"


def test_another_round_keeps_the_first_ones_trees_and_measures_the_new_policy() -> None:
    one, two = small_recipe(), small_recipe(rounds=2)
    same = {name for name in stages_of(one) if dependencies(one, name) == dependencies(two, name)}
    assert {"round-1", "round-1-validation", "evaluate-base-greedy"} <= same
    assert not {"scorer-1", "policy-1", "evaluate-step-dpo"} & same, "the last models lie elsewhere"


def test_what_is_compatible_is_reused_and_what_is_not_is_said_and_kept(tmp_path: Path) -> None:
    run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path)
    first = contents(tmp_path)
    seen = run(small_recipe(**SMALL, evaluation=SAMPLED | {"samples": 5}), tmp_path)
    assert "The stage evaluate-base is done anew: evaluation.samples was 4 and is now 5" in seen
    assert "kept in superseded/evaluate-base-1" in seen
    assert seen.count("done anew") == 1
    second = contents(tmp_path)
    assert {name for name in first if first[name] != second[name]} == {"evaluate-base"}
    kept = tmp_path / "superseded" / "evaluate-base-1" / "trees" / "evaluate-base.jsonl"
    assert kept.read_bytes() == first["evaluate-base"]
    more = small_recipe(**SMALL | {"problems": {"train": 3, "test": 5}}, evaluation=SAMPLED | {"samples": 5})
    assert "done anew" not in run(more, tmp_path)
    third = contents(tmp_path)
    assert third["evaluate-base"].startswith(second["evaluate-base"])
    assert len(third["evaluate-base"].splitlines()) == 5
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["recipe"]["problems"]["test"] == 5


def test_what_the_named_files_hold_is_part_of_the_recipe(tmp_path: Path) -> None:
    """Another verifier in the task's file, other rows in its source and other weights: nothing old is used again."""
    rows, task = tmp_path / "rows.jsonl", tmp_path / "task.yaml"
    rows.write_text("".join(f'{{"text": "{n}", "answer": {n}}}\n' for n in range(12)), encoding="utf-8")
    described = 'source: rows.jsonl\ntemplate: "Make 46 from {text} 5 7 8\\n"\nvalidation_fraction: 0.2\n'
    task.write_text(f"{described}verifier: number\n", encoding="utf-8")
    model = tmp_path / "model"
    shutil.copytree(resolve_model("shipped:countdown"), model)
    recipe = small_recipe(
        **SMALL | {"problems": {"test": 2}, "search": None},
        task={"name": "own", "file": str(task)},
        policy={"model": str(model), "sampling": {"max_step_tokens": 16, "max_steps": 4}},
        evaluation=SAMPLED | {"greedy": False},
    )
    folder = tmp_path / "run"
    run(recipe, folder)
    shutil.copytree(model, tmp_path / "copy")
    shutil.rmtree(model)
    (tmp_path / "copy").rename(model)
    assert "done anew" not in run(recipe, folder), "a copy holds the same"
    task.write_text(f"{described}verifier: exact\n", encoding="utf-8")
    assert f"evaluate-base is done anew: the content of {task} was" in run(recipe, folder)
    rows.write_text(rows.read_text(encoding="utf-8").replace('"answer": 3', '"answer": 4'), encoding="utf-8")
    assert f"evaluate-base is done anew: the content of {rows} was" in run(recipe, folder)
    weights = load_file(model / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    assert f"evaluate-base is done anew: the content of {model} was" in run(recipe, folder)


def test_a_large_file_is_known_by_pieces_from_everywhere(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    recipe = small_recipe(**SMALL | {"policy": {"model": str(model)}}, evaluation=SAMPLED)
    assert contents_of(recipe) == {}
    (model / "notes.md").write_text("no part of a model")
    content = bytearray(9 * 2**20)
    digests = set()
    for place in (None, 0, 5 * 2**20, len(content) - 1):
        if place is not None:
            content[place : place + 2**18] = b"x" * min(2**18, len(content) - place)
        (model / "model.safetensors").write_bytes(content)
        digests.add(contents_of(recipe)["policy.model"][str(model)])
    assert len(digests) == 4


def test_trees_that_a_changed_recipe_left_half_grown_are_not_mixed(tmp_path: Path) -> None:
    with TreeStore(tmp_path / "trees" / "evaluate-base.jsonl") as store:
        store.append(Tree(Problem("other", "of another time")))
    seen = run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path)
    assert "The stage evaluate-base is done anew: it does not say what it was made with" in seen
    assert redone(tmp_path) == ["evaluate-base-1"]
    assert "other" not in TreeStore(tmp_path / "trees" / "evaluate-base.jsonl")


def test_a_run_that_failed_before_its_first_result_goes_on_with_the_corrected_recipe(tmp_path: Path) -> None:
    wrong = small_recipe(**SMALL | {"policy": {"model": str(tmp_path / "nowhere")}}, evaluation=SAMPLED)
    with pytest.raises(GradatimError):
        run(wrong, tmp_path / "run")
    seen = run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path / "run")
    assert "done anew" not in seen
    assert redone(tmp_path / "run") == []


def test_trained_models_are_retrained_when_their_trees_change(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "problems": {"train": 4, "test": 2},
        "judge": None,
        "evaluation": SAMPLED | {"greedy": False},
    }
    changes["objective"] = {"name": "sft", "training": {"learning_rate": 1e-3, "epochs": 3, "tokens_per_batch": 128}}
    run(small_recipe(**changes), tmp_path)
    before = (tmp_path / "policy" / "model.safetensors").read_bytes()
    content = small_content()["search"] | {"branching": [3, 3, 2]}
    seen = run(small_recipe(**changes, search=content), tmp_path)
    assert redone(tmp_path) == ["evaluate-sft-1", "policy-1-1", "round-1-1"]
    assert "The stage policy-1 is done anew: search.branching was [4, 3, 2] and is now [3, 3, 2]" in seen
    assert (tmp_path / "superseded" / "policy-1-1" / "policy" / "model.safetensors").read_bytes() == before
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() != before


# Trees that are there already


def test_another_runs_trees_are_learned_from(tmp_path: Path) -> None:
    run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path / "grown")
    changes = {"judge": None, "problems": {"test": 2}, "evaluation": SAMPLED | {"greedy": False}}
    for number, source in enumerate((tmp_path / "grown", tmp_path / "grown" / "trees" / "round-1.jsonl")):
        folder = tmp_path / f"learned-{number}"
        seen = run(small_recipe(**changes, search=None, trees={"stored": str(source)}), folder)
        assert "Growing" not in seen
        assert contents(folder)["round-1"] == contents(tmp_path / "grown")["round-1"]
        assert (folder / "policy").is_dir()


def test_stored_trees_get_values_and_those_of_test_problems_are_left_out(tmp_path: Path) -> None:
    run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path / "grown")
    source = tmp_path / "bare.jsonl"
    with TreeStore(source) as store:
        for name in ("round-1", "evaluate-base"):
            for tree in TreeStore(tmp_path / "grown" / "trees" / f"{name}.jsonl"):
                for node in tree.nodes:
                    node.scores.clear()
                    node.counts.clear()
                store.append(tree)
    recipe = small_recipe(
        search=None, trees={"stored": str(source)}, judge=None, problems={"test": 3}, evaluation=SAMPLED
    )
    run(recipe, tmp_path / "run")
    taken = list(TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl"))
    assert len(taken) == 3
    assert all(VALUE in tree.root.scores for tree in taken)


def test_imported_labels_are_what_steps_are_worth(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "Make 46 from 3 5 7 8\n", "completions": [" 7 * 5 = 35 | 3 8 35\n", " 35 * 8 = 280 | 3 280\n"]}
    rows.write_text(json.dumps({**row, "labels": [True, False]}) + "\n", encoding="utf-8")
    with TreeStore(tmp_path / "trees.jsonl") as store:
        for tree in read_published(str(rows), "stepwise"):
            store.append(tree)
    stored = {"stored": str(tmp_path / "trees.jsonl")}
    run(
        small_recipe(search=None, trees=stored, objective=None, problems={"test": 2}, evaluation=SAMPLED),
        tmp_path / "run",
    )
    (tree,) = TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl")
    assert [node.scores[VALUE] for node in tree.nodes[1:]] == [1.0, 0.0]
    assert json.loads((tmp_path / "run" / "stages" / "scorer-1.json").read_text(encoding="utf-8"))["examples"] == 2


def test_a_policy_learns_other_models_trees_in_its_own_tokens(tmp_path: Path) -> None:
    """Trees in another model's tokens were trained on as if these were its own; text could not be trained on."""
    run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path / "grown")
    text, other = tmp_path / "text.jsonl", tmp_path / "other.jsonl"
    with TreeStore(text) as without, TreeStore(other) as with_others:
        for tree in TreeStore(tmp_path / "grown" / "trees" / "round-1.jsonl"):
            value = tree.to_json()
            for record in value["nodes"]:
                record.pop("log_probabilities", None)
                record["tokens"] = [token + 1 for token in record.get("tokens", [])]
            value["tokenizer"] = "another"
            with_others.append(Tree.from_json(value))
            for record in value["nodes"]:
                record["tokens"] = []
            without.append(Tree.from_json(value))
    changes = {"judge": None, "problems": {"test": 2}, "evaluation": SAMPLED | {"greedy": False}}
    learned = {}
    for source in (tmp_path / "grown", text, other):
        folder = tmp_path / f"from-{source.stem}"
        run(small_recipe(**changes, search=None, trees={"stored": str(source)}), folder)
        learned[source.stem] = load_file(folder / "policy" / "model.safetensors")
    for name in ("text", "other"):
        assert all(torch.allclose(learned[name][key], each) for key, each in learned["grown"].items()), name


@pytest.mark.parametrize("learner", ["judge", "objective"])
def test_stored_trees_that_a_model_cannot_read_are_told_before_anything(learner: str, tmp_path: Path) -> None:
    with TreeStore(tmp_path / "trees.jsonl") as store:
        store.append(Tree(Problem("p", "What is 1 + 1?\n", "2")))
    changes = {name: None for name in ("judge", "objective") if name != learner}
    key = {"judge": "scorer", "objective": "policy"}[learner]
    for name, said in (
        ("trees.jsonl", rf"cannot be read by the {key}'s model 'shipped:countdown'"),
        ("empty.jsonl", "is empty"),
    ):
        (tmp_path / name).touch()
        stored = {"stored": str(tmp_path / name)}
        recipe = small_recipe(
            **changes, search=None, trees=stored, problems={"test": 1}, evaluation=SAMPLED | {"search": []}
        )
        with pytest.raises(GradatimError, match=said):
            run(recipe, tmp_path / "run")
        assert not (tmp_path / "run" / "trees").exists()


def test_damaged_lines_of_stored_trees_are_passed_over_where_the_recipe_says_so(tmp_path: Path) -> None:
    run(small_recipe(**SMALL, evaluation=SAMPLED), tmp_path / "grown")
    source = tmp_path / "grown" / "trees" / "round-1.jsonl"
    damage_first_line(source)
    stored: dict[str, Any] = {"stored": str(source)}
    changes: dict[str, Any] = {"judge": None, "problems": {"test": 2}, "evaluation": SAMPLED | {"greedy": False}}
    with pytest.raises(GradatimError, match=r"line 1 of .* is damaged") as caught:
        run(small_recipe(**changes, search=None, trees=stored), tmp_path / "run")
    command = SimpleNamespace(params=[SimpleNamespace(param_type_name="option", name="set_", opts=["--set"])])
    assert in_words_of(command, caught.value).endswith(
        "read the rest with --set trees.damaged=skip, or restore the file"
    )
    with pytest.warns(UserWarning, match=r"line 1 of .* is damaged .*; it is skipped"):
        run(small_recipe(**changes, search=None, trees=stored | {"damaged": "skip"}), tmp_path / "run")
    assert len(TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl")) == SMALL["problems"]["train"] - 1


def test_a_runs_own_tree_is_searched_again_where_its_line_was_damaged(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"problems": {"test": 3}, "search": None, "judge": None, "objective": None}
    run(small_recipe(**changes, evaluation=SAMPLED), tmp_path)
    source = tmp_path / "trees" / "evaluate-base.jsonl"
    before = {tree.problem.id: tree.to_json() for tree in TreeStore(source)}
    damage_first_line(source)
    with pytest.warns(UserWarning, match=r"line 1 of .* is damaged .*; it is skipped"):
        run(small_recipe(**changes, evaluation=SAMPLED), tmp_path)
    assert {tree.problem.id: tree.to_json() for tree in TreeStore(source, damaged="skip")} == before


def damage_first_line(path: Path) -> None:
    """Change one byte in the middle of a file's first line."""
    first, *rest = path.read_bytes().splitlines(keepends=True)
    middle = len(first) // 2
    path.write_bytes(first[:middle] + bytes([first[middle] ^ 1]) + first[middle + 1 :] + b"".join(rest))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": None}, "learn needs trees: add a search section"),
        ({"trees": {"stored": "x"}}, "trees.stored takes the place of a search"),
        ({"problems": {"test": 2}}, "say how many problems to grow them on in problems.train"),
        ({"search": None, "trees": {"stored": "x"}, "rounds": 2}, "stored trees serve one round"),
        ({"search": None, "trees": {"stored": "x"}}, "set problems.validation to 0"),
        ({"search": None, "trees": {"stored": "x"}, "regrow": ["controlled_errors"]}, "leave regrow out"),
    ],
)
def test_a_recipe_that_learns_says_from_which_trees(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        small_recipe(**changes)


def test_trees_that_are_not_there_are_said(tmp_path: Path) -> None:
    recipe = small_recipe(
        search=None, trees={"stored": str(tmp_path / "no")}, judge=None, problems={"test": 1}, evaluation=SAMPLED
    )
    with pytest.raises(GradatimError, match="which is not there; name a run or trees file"):
        run(recipe, tmp_path / "run")


def test_nothing_is_grown_that_nothing_uses(tmp_path: Path) -> None:
    recipe = load_recipe("gsm8k")
    assert isinstance(recipe, Recipe)
    assert recipe.search is None
    run(small_recipe(problems={"test": 2}, search=None, judge=None, objective=None, evaluation=SAMPLED), tmp_path)
    assert set(contents(tmp_path)) == {"evaluate-base", "evaluate-base-greedy"}


# A search of one's own

OWN_SEARCH = '''
from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.search import Search


@part
class Twice(Search):
    """Whole solutions, twice as many as asked for."""

    title: ClassVar[str] = "twice"
    grows_with: ClassVar[tuple[str, ...]] = ("n",)

    n: PositiveInt = 1
    """Half of the solutions."""

    async def __call__(
        self, tree: Any, policy: Any, scorer: Any = None, *, sampling: Any = None, answer: Any = None
    ) -> None:
        await policy.extend([tree.root], 2 * self.n, steps=None, sampling=sampling)
'''


def test_a_search_in_a_file_of_ones_own_grows_trees_and_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(OWN_SEARCH)
    name = f"{tmp_path / 'twice.py'}:Twice"
    changes: dict[str, Any] = {
        "problems": {"train": 3, "test": 3},
        "search": {"name": name, "n": 2},
        "judge": None,
        "objective": {"name": "sft", "training": {"learning_rate": 1e-3, "tokens_per_batch": 128}},
        "evaluation": SAMPLED | {"search": [{"name": name}, {"name": "sampling", "n": 3}]},
    }
    run(small_recipe(**changes), tmp_path / "run")
    grown = list(TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl"))
    assert [sum(leaf.multiplicity for leaf in tree.leaves()) for tree in grown] == [4, 4, 4]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    own, sampled = report["search"][-2:]
    assert (own["method"], own["settings"], own["scorer"]) == ("twice", {"n": 1}, "none")
    assert (sampled["method"], sampled["settings"]["n"]) == ("sampling", 3)
    seen = run(small_recipe(**changes | {"search": {"name": name, "n": 3}}), tmp_path / "run")
    assert "The stage round-1 is done anew: search.n was 2 and is now 3" in seen
    (tmp_path / "twice.py").write_text(OWN_SEARCH.replace("2 * self.n", "3 * self.n"))
    seen = run(small_recipe(**changes | {"search": {"name": name, "n": 3}}), tmp_path / "run")
    assert "The stage round-1 is done anew" in seen
    grown = list(TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl"))
    assert [sum(leaf.multiplicity for leaf in tree.leaves()) for tree in grown] == [9, 9, 9]
    assert "search-" in seen, "what evaluates by it is done anew too"
