"""One recipe with policies of every kind, which differ in the argument that names them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from failing_server import serving
from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes import Recipe, load_recipe
from gradatim.run import Progress, run_recipe
from gradatim.scorers.loading import load_scoring_model
from gradatim.store import TreeStore
from gradatim.tree import Tree
from small_runs import small_recipe
from tiny_models import byte_pair_tokenizer, tiny_causal

QUESTIONS = [f"Ann has {n} apples and buys {n + 1} more. How many?" for n in range(2, 26)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in GSM8K's layout."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    rows = [
        {"question": question, "answer": f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}"}
        for n, question in enumerate(QUESTIONS, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of a real kind, in a folder."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = byte_pair_tokenizer(QUESTIONS, size=300)
    tiny_causal("qwen3", vocabulary=len(tokenizer), positions=512).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def in_the_hub_cache(folder: Path, cache: Path, name: str) -> str:
    """Lay a model's files where ``from_pretrained`` of a hub id finds what was downloaded before."""
    place = cache / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    return name


def write_answer(text: str, seed: int) -> list[str]:
    """A model that is a function: it adds, and is wrong for every third seed."""
    if "Ann has " not in text:  # what a run asks to see whether the server answers
        return [" 2"]
    numbers = [int(word) for word in text.rsplit("Ann has ", 1)[1].split() if word.isdigit()][:2]
    total = sum(numbers) + (seed % 3 == 0)
    steps = ["She", " adds", ".\n", f"#### {total}"]
    done = text.split("Answer:\n", 1)[1]
    for step in ("She adds.\n",):
        if done.startswith(step):
            return steps[3:]
    return steps


def report(source: Path, policy: str, output: Path) -> dict[str, Any]:
    sizes = ["problems.train=3", "problems.test=4", "evaluation.samples=4", "policy.sampling.max_step_tokens=8"]
    more = ["policy.sampling.max_steps=3", "evaluation.pass_at=[1, 4]", "evaluation.majority=[4]"]
    grown = "search={name: grow, branching: [4, 2, 2]}"
    settings = [grown, f"task.source={source}", "task.validation_fraction=0.4", "policy.dtype=float32", *sizes, *more]
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["run", "gsm8k", "--policy", policy, *arguments, "--output", str(output)])
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert value["settings"]["policy"] == policy
    return value


def trees(output: Path, name: str) -> list[Tree]:
    return list(TreeStore(output / "trees" / f"{name}.jsonl"))


def test_a_hub_id_and_a_folder_are_the_same_model(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    name = in_the_hub_cache(folder, tmp_path / "hub", "somebody/tiny")
    first, second = report(source, name, tmp_path / "a"), report(source, str(folder), tmp_path / "b")
    assert first["base"] == second["base"]
    texts = [[tree.to_json()["nodes"] for tree in trees(tmp_path / run, "evaluate-base")] for run in ("a", "b")]
    assert texts[0] == texts[1]


def test_a_server_is_a_policy_like_any_other(source: Path, tmp_path: Path) -> None:
    with serving(write_answer) as server:
        server.owner = "vllm"
        value = report(source, server.url, tmp_path)
    pass_at = {k: estimate["value"] for k, estimate in value["base"]["pass_at_k"].items()}
    assert 0.3 < pass_at["1"] < pass_at["4"]
    grown = trees(tmp_path, "round-1")
    assert all(not node.step.tokens for tree in grown for node in tree.nodes)
    assert {node.step.text for tree in grown for node in tree.nodes if node.depth == 1} == {"She adds.\n"}
    assert all(tree.budget.written("policy") > 0 for tree in grown)


def test_a_reward_model_learns_from_a_server_and_guides_it(source: Path, folder: Path, tmp_path: Path) -> None:
    """The trees are text, which the reward model reads in its own tokens."""
    changes = {
        "name": "judged",
        "task": {"name": "gsm8k", "source": str(source), "validation_fraction": 0.4},
        "problems": {"train": 4, "validation": 3, "test": 3},
        "search": {"name": "grow", "branching": [2, 4]},
        "trees": {"in_flight": 1},
        "objective": None,
        "judge": {"model": str(folder), "training": {"learning_rate": 1.0e-3, "epochs": 2, "tokens_per_batch": 512}},
        "evaluation": {
            "samples": 4, "pass_at": [1], "best_of": [4], "majority": [], "in_flight": 1, "greedy": False,
            "search": [{"beam": {"width": 1, "branch": 2}}],
        },
    }  # fmt: skip
    with serving(write_answer) as server:
        policy = {"model": server.url, "device": "cpu", "sampling": {"max_step_tokens": 8, "max_steps": 3}}
        value = run_recipe(
            small_recipe(policy=policy, **changes), tmp_path, progress=Progress(Console(file=io.StringIO()))
        )
    sampled = trees(tmp_path, "evaluate-base")
    assert all("process_reward" in leaf.scores for tree in sampled for leaf in tree.solutions())
    assert all(tree.budget.read("scorer") > 0 for tree in sampled)
    searched = [row for row in value["search"] if row["method"] == "beam search"]
    assert len(searched) == 1
    model, layout = load_scoring_model(tmp_path / "scorer")
    assert layout.name == "own"
    assert type(model).__name__ == "Qwen3ForTokenClassification"
    card = (tmp_path / "scorer" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "held-out loss" in card


def test_an_untrained_reward_model_is_used_as_it_is(tmp_path: Path) -> None:
    recipe = small_recipe(
        judge={"model": "shipped:countdown-reward", "train": False},
        objective=None,
        problems={"train": 1, "test": 3},
    )
    run_recipe(recipe, tmp_path, progress=Progress(Console(file=io.StringIO())))
    assert not (tmp_path / "scorer").exists()
    assert all(
        "process_reward" in leaf.scores for tree in trees(tmp_path, "evaluate-base") for leaf in tree.solutions()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": {"model": "a/b"}}, "learn.1 trains policy, but policy.model is a server's"),
        ({"objective": None}, "models.scorer begins as the policy, which is a server's"),
        ({"policy": {"model": "a/b", "adapter": "c"}, "judge": None}, "policy.adapter is not part of its weights"),
        ({"policy": {"model": "a/b", "quantization": "4bit"}}, "quantization keeps it in few bits"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        small_recipe(**{"policy": {"model": "http://127.0.0.1:1/v1"}, **changes})


def test_every_task_can_be_named_in_a_recipe(tmp_path: Path) -> None:
    own = Path(__file__).parents[1] / "examples" / "own_task"
    sections: list[dict[str, Any]] = [
        {"name": "math", "levels": [1, 2]},
        {"name": "multiple_choice", "splits": {"test": "validation"}},
        {"name": "code", "reward": "fraction", "limits": {"cpu_seconds": 1}},
        {"name": "word_problems", "operations": [1, 2]},
        {"name": "records", "source": str(own / "problems.jsonl"), "template": "{question}\n", "verifier": "number"},
        {"name": "own", "file": str(own / "task.yaml")},
        {"name": f"{own / 'task.py'}:Change", "largest": 50},
    ]
    for section in sections:
        task = small_recipe(task=section).task
        assert "".join(task.boundary.split("a\n\nb")) == "a\n\nb"


def test_the_shipped_recipe_needs_nothing_but_a_policy() -> None:
    recipe = load_recipe("gsm8k")
    assert isinstance(recipe, Recipe)
    assert not recipe.learn
    assert recipe.scorer is None
    assert Path(resolve_model("shipped:countdown")).is_dir()
