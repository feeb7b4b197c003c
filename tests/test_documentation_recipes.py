"""The recipes that the pages show for large models run as they are, their options included, at a small size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

from base_model import PAIRS, question, solution, train_base_model
from documentation_pages import ROOT, Block, blocks_of
from gradatim.cli.main import app
from gradatim.training import load_process_reward_model, save_process_reward_model

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def not_run(page: Path) -> list[Block]:
    """The recipes that a page shows with a command that its own test does not run."""
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    run, left = (
        "\n".join(block.code for block in blocks if (block.comment == "not run") == skip) for skip in (False, True)
    )
    recipes = [block for block in blocks if block.language == "yaml" and block.title and "\npolicy:" in block.code]
    named = {block.title: f"gradatim run {block.title}" for block in recipes}
    return [block for block in recipes if named[block.title] in left and named[block.title] not in run]


RECIPES = {str(block.title): block for page in PAGES for block in not_run(page)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of sums, with a chat template, a reward model of it, and sums in the layouts of the tasks."""
    folder = tmp_path_factory.mktemp("small")
    train_base_model(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = "Question: {{ messages[-1].content }}\nAnswer:\n"
    tokenizer.save_pretrained(folder / "model")
    save_process_reward_model(load_process_reward_model(folder / "model"), tokenizer, folder / "judge")
    rows = [
        {"question": question(*pair), "problem": question(*pair), "answer": solution(*pair), "number": sum(pair)}
        for pair in PAIRS
    ]
    (folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("math", "own"):
        numbered = [{**row, "answer": str(row["number"])} for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered))
    task = {
        "source": str(folder / "own.jsonl"),
        "template": "Question: {question}\nAnswer:\n",
        "verifier": "number",
        "answer_field": "answer",
        "validation_fraction": 0.3,
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    return folder


def changes(recipe: dict[str, Any], place: Path) -> list[str]:
    """What makes a recipe small, and what it names a thing of this machine; all else stays as the page has it."""
    name = recipe["task"]["name"]
    found = [f"policy.model={place / 'model'}", "problems.train=16", "problems.test=2"]
    if "learn" in recipe:
        found.append("policy.sampling.temperature=2.0")  # or the small model is too sure of itself to make pairs
    if recipe["problems"].get("validation"):
        found.append("problems.validation=2")
    if name == "own":
        found.append(f"task.file={place / 'task.yaml'}")
    else:
        found += [f"task.source={place / name}.jsonl", "task.validation_fraction=0.3"]
    if name == "math":
        found.append("policy.sampling.max_steps=6")
        found.append('task.template="Question: {problem}\\nAnswer:\\n"')
    if "device" in recipe["policy"]:
        found.append("policy.device=cpu")
    if "models" in recipe:
        found.append(f"models.scorer.model={place / 'judge'}")
    return found


def test_there_are_such_recipes() -> None:
    assert {"gsm8k-step-dpo.yaml", "judged-math.yaml", "rates.yaml"} <= RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_for_a_large_model_runs_with_a_small_one(name: str, place: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(RECIPES[name].code, encoding="utf-8")
    recipe = yaml.safe_load(RECIPES[name].code)
    settings = [part for change in changes(recipe, place) for part in ("--set", change)]
    result = CliRunner().invoke(app, ["run", str(path), *settings, "--output", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    if "learn" in recipe:
        assert report["stages"]["policy-1"]["updates"] > 0
        assert len(report["stages"]["policy-1"]["evaluations"]) > 1
        assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()
