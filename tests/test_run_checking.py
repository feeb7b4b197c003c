"""What is wrong with a recipe is said before the first token; a few problems show what a run will do and cost."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer
from typer.testing import CliRunner

from failing_server import serving
from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.transformers import TransformersPolicy
from gradatim.run import Progress, checking, models, run_recipe
from model_families import model_of
from small_runs import small_recipe, write_small_recipe
from tiny_models import byte_pair_tokenizer, tiny_causal

NO_LEARNING: dict[str, Any] = {"problems": {"test": 2}, "search": None, "judge": None, "objective": None}
EVALUATION = {"samples": 4, "pass_at": [1], "best_of": [1], "majority": [4], "greedy": False}
TRAINING = {"learning_rate": 1e-4, "tokens_per_batch": 256}


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that must not be asked for anything."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a token was written")

    monkeypatch.setattr(TransformersPolicy, "extend", refuse)


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """A random model with a chat template and a context of 64 tokens."""
    tokenizer = byte_pair_tokenizer(["Make 5 from 3 2"], size=270)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tiny_causal("llama", vocabulary=len(tokenizer), positions=64).save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    return tmp_path / "chat"


def run(folder: Path, **changes: Any) -> str:
    seen = io.StringIO()
    run_recipe(
        small_recipe(**{"evaluation": EVALUATION, **changes}), folder, progress=Progress(Console(file=seen, width=400))
    )
    return seen.getvalue()


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": {"model": "./nowhere", "train": False}}, "there is no folder './nowhere'"),
        ({"judge": {"model": "./nowhere"}}, "there is no folder './nowhere'"),
        ({"judge": {"model": "shipped:countdown", "train": False}}, "is an ordinary language model"),
        (
            {"objective": {"name": "sft", "training": TRAINING | {"lora": {"target_modules": ["q"]}}}},
            "the LoRA target module 'q' fits no module of the model; choose from",
        ),
        (
            {"judge": {"training": TRAINING | {"lora": {"target_modules": ["q"]}}}},
            "the LoRA target module 'q' fits no module",
        ),
        ({"policy": {"model": "shipped:countdown", "chat": {}}}, "has no chat template"),
        ({"policy": {"model": "shipped:countdown", "device": "cuda:99"}}, "the device 'cuda:99' cannot be used here"),
        (
            {
                "policy": {"model": "shipped:countdown", "adapter": "./nowhere"},
                "objective": None,
                "judge": None,
                "search": None,
            },
            "no folder './nowhere'",
        ),
        ({"task": {"name": "word_problems"}}, "tokenizer has no tokens for part of problem"),
        (
            {"search": None, "trees": {"stored": "./nowhere"}, "problems": {"test": 2}, "judge": None},
            "trees.stored names './nowhere', which is not there",
        ),
    ],
)
def test_what_cannot_work_is_said_before_the_first_token(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(GradatimError) as caught:
        run(tmp_path, **changes)
    assert said in str(caught.value)
    assert not (tmp_path / "trees").exists()


@pytest.mark.usefixtures("no_token")
def test_prompts_that_do_not_fit_are_counted(chat_model: Path, tmp_path: Path) -> None:
    config = json.loads((chat_model / "config.json").read_text())
    (chat_model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 6}))
    with pytest.raises(GradatimError, match=r"2 of 2 prompts do not fit the policy's context of 6 tokens"):
        run(tmp_path / "run", policy={"model": str(chat_model), "device": "cpu"}, **NO_LEARNING)


@pytest.mark.usefixtures("no_token")
def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with serving(lambda text, seed: ["x"]) as server:
        url = server.url
    with pytest.raises(GradatimError, match="there is no server at"):
        run(tmp_path, policy={"model": url}, **NO_LEARNING)


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize("part", ["policy", "scorer", "trained scorer"])
def test_damaged_weights_are_found_before_the_first_token(part: str, tmp_path: Path) -> None:
    shipped = "countdown-reward" if part == "scorer" else "countdown"
    damaged = tmp_path / "damaged"
    shutil.copytree(resolve_model(f"shipped:{shipped}"), damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    changes: dict[str, Any] = {
        "policy": {"policy": {"model": str(damaged), "device": "cpu"}},
        "scorer": {"judge": {"model": str(damaged), "train": False}},
        "trained scorer": {"judge": {"model": str(damaged)}},
    }[part]
    with pytest.raises(GradatimError, match="cannot load"):
        run(tmp_path / "run", **changes)


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(("kind", "reason"), [("lfm2", "layers of the type 'conv'"), ("bloom", "cannot be run")])
@pytest.mark.parametrize("part", ["policy", "trained scorer"])
def test_models_that_would_be_wrong_over_trees_are_refused_before_the_first_token(
    kind: str, reason: str, part: str, tmp_path: Path
) -> None:
    folder = tmp_path / kind
    shutil.copytree(resolve_model("shipped:countdown"), folder)  # for its tokenizer
    tokens = len(AutoTokenizer.from_pretrained(folder))
    model_of(kind, vocab_size=tokens).save_pretrained(folder)
    name = {"model": str(folder)} | ({"device": "cpu"} if part == "policy" else {})
    with pytest.raises(GradatimError, match=f"'{kind}' cannot be .*") as caught:
        run(tmp_path / "run", **{"policy" if part == "policy" else "judge": name})
    assert part == "trained scorer" or reason in str(caught.value)


def test_the_first_stage_takes_the_models_that_the_check_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = models.placed

    def counted(kind: Any, name: str, **options: Any) -> Any:
        loaded.append(Path(name).name)
        return load(kind, name, **options)

    monkeypatch.setattr(models, "placed", counted)
    run(tmp_path, **NO_LEARNING)
    assert loaded == ["countdown"]


def test_few_problems_and_an_unused_chat_template_are_told(chat_model: Path, tmp_path: Path) -> None:
    rows = [{"question": f"{number}?", "answer": "#### 1"} for number in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampling = {"max_step_tokens": 4, "max_steps": 2}
    seen = run(
        tmp_path / "run",
        **NO_LEARNING | {"problems": {"test": 5}},
        task={"name": "gsm8k", "source": str(tmp_path / "rows.jsonl"), "validation_fraction": 0.2},
        policy={"model": str(chat_model), "device": "cpu", "sampling": sampling},
    )
    assert "has a chat template and policy.chat is not set" in seen
    assert "problems.test asks for 5 problems, but there are 2 different ones" in seen


def test_what_was_checked_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, **NO_LEARNING)
    monkeypatch.setattr(checking, "check", lambda run: pytest.fail("it was checked before"))
    run(tmp_path, **NO_LEARNING)
    with pytest.raises(pytest.fail.Exception):
        run(tmp_path, **NO_LEARNING, seed=1)


# gradatim check


def test_check_shows_solutions_and_costs_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_small_recipe(tmp_path)
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["check", str(recipe)])
    assert result.exit_code == 0, result.output
    assert "Make " in result.output
    assert "| " in result.output
    assert "growing trees" in result.output
    assert "Nothing is wrong with it." in result.output
    assert set(tmp_path.rglob("*")) == before


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    recipe = write_small_recipe(tmp_path)
    cut = CliRunner().invoke(app, ["check", str(recipe), "--set", "policy.sampling.max_steps=1"])
    assert cut.exit_code == 1
    assert "every solution was cut off: raise policy.sampling.max_step_tokens" in cut.output
    (tmp_path / "taught").mkdir()
    teaching = write_small_recipe(tmp_path / "taught", demonstrations={"demonstrations": 2})
    taught = CliRunner().invoke(app, ["check", str(teaching), "--set", "policy.sampling.max_steps=1"])
    assert taught.exit_code == 0, "it is not this policy that is searched"
    assert "is fine-tuned first" in " ".join(taught.output.split())
    missing = CliRunner().invoke(app, ["check", str(recipe), "--policy", "./nowhere"])
    assert missing.exit_code == 1
    assert "there is no folder './nowhere'" in missing.output


def test_check_of_a_server(tmp_path: Path) -> None:
    recipe = write_small_recipe(tmp_path, **NO_LEARNING, evaluation=EVALUATION)
    with serving(lambda text, seed: list(" 1 + 1 = 2 | 2")) as server:
        result = CliRunner().invoke(app, ["check", str(recipe), "--policy", server.url])
    assert result.exit_code == 1
    assert "no solution is right: look at the prompt" in result.output
    assert "number not available" in result.output
