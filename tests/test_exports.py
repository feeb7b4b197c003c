"""Rows of every construction: TRL loads and prepares them word for word, and they come back from import."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from rich.console import Console

from clean_task import Given
from gradatim.part import make, names
from gradatim.run import Progress, run_recipe
from gradatim.search.regrowth import ControlledErrors
from gradatim.store import RowFormat, TreeStore, read_published, row_format, write_jsonl, write_published
from gradatim.supervision import Construction
from gradatim.tasks.base import grade
from gradatim.tree import Tree
from gradatim.values.backup import back_up_values
from scripted_countdown import TASK, new_tree, problems, random_policy
from small_runs import small_recipe
from tiny_models import byte_pair_tokenizer, tiny_causal

CONSTRUCTIONS: dict[str, Construction] = {name: make("supervision", name) for name in names("supervision")}
IMPORTED = {
    RowFormat.STEPWISE_SUPERVISION: "stepwise",
    RowFormat.PREFERENCE: "preference",
    RowFormat.UNPAIRED_PREFERENCE: "unpaired_preference",
    RowFormat.PROMPT_COMPLETION: "prompt_completion",
}


@pytest.fixture(scope="module")
def forest() -> list[Tree]:
    """Trees of the task in which constructions find something."""
    policy, trees = random_policy(noise=0.2), []
    for problem in problems(3):
        tree = new_tree(problem)
        asyncio.run(policy.extend([tree.root], 24, steps=None))
        grade(tree, TASK)
        asyncio.run(ControlledErrors()(tree, Given({"policy": policy}, TASK)))
        back_up_values(tree)
        for node in tree.nodes:
            if "value" in node.scores:
                node.scores["process_reward"] = node.scores["value"]
        trees.append(tree)
    return trees


@pytest.fixture(scope="module")
def rows(forest: list[Tree]) -> dict[str, list[dict[str, Any]]]:
    """What each construction exports."""
    made = {name: [row for tree in forest for row in each.rows(each(tree))] for name, each in CONSTRUCTIONS.items()}
    return {name: found for name, found in made.items() if found}


def of_format(rows: dict[str, list[dict[str, Any]]], kind: RowFormat) -> Iterator[dict[str, Any]]:
    for found in rows.values():
        if row_format(found) is kind:
            yield from found[:12]


def loaded(rows: list[dict[str, Any]], folder: Path) -> Dataset:
    """The rows as a data set, read from the file that an export writes."""
    write_jsonl(rows, folder / "rows.jsonl")
    return Dataset.from_json(str(folder / "rows.jsonl"), cache_dir=str(folder / "cache"))


def prepared(kind: RowFormat, rows: list[dict[str, Any]], folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """A data set as TRL's trainer of its format prepares it, and the tokenizer."""
    import trl

    name = {
        RowFormat.PROMPT_COMPLETION: "SFT",
        RowFormat.PREFERENCE: "DPO",
        RowFormat.UNPAIRED_PREFERENCE: "KTO",
    }[kind]
    tokenizer = byte_pair_tokenizer([], size=260)
    models = [tiny_causal(vocabulary=len(tokenizer)) for _ in range(1 if name == "SFT" else 2)]  # and a reference
    arguments = getattr(trl, f"{name}Config")(
        output_dir=str(folder / "trained"), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
        max_length=None, per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = getattr(trl, f"{name}Trainer")(
        *models, args=arguments, train_dataset=loaded(rows, folder), processing_class=tokenizer
    )
    return tokenizer, list(trainer.train_dataset)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (RowFormat.PREFERENCE, {"prompt": "prompt_ids", "chosen": "chosen_ids", "rejected": "rejected_ids"}),
        (RowFormat.UNPAIRED_PREFERENCE, {"prompt": "prompt_ids", "completion": "completion_ids"}),
    ],
)
def test_trl_prepares_the_texts_of_preferences(
    kind: RowFormat, parts: dict[str, str], rows: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    given = list(of_format(rows, kind))
    tokenizer, found = prepared(kind, given, tmp_path)
    assert len(found) == len(given)
    for row, ids in zip(given, found, strict=True):
        for name, key in parts.items():
            end = "" if name == "prompt" else tokenizer.eos_token  # TRL ends every completion
            assert tokenizer.decode(ids[key]) == row[name] + end
        assert ids.get("label") == row.get("label")


def test_trl_prepares_the_texts_of_completions(rows: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    given = list(of_format(rows, RowFormat.PROMPT_COMPLETION))
    tokenizer, found = prepared(RowFormat.PROMPT_COMPLETION, given, tmp_path)
    for row, ids in zip(given, found, strict=True):
        assert tokenizer.decode(ids["input_ids"]) == row["prompt"] + row["completion"] + tokenizer.eos_token
        learned = [token for token in ids["labels"] if token >= 0]
        assert tokenizer.decode(learned) == row["completion"] + tokenizer.eos_token


@pytest.mark.parametrize("kind", [RowFormat.STEPWISE_SUPERVISION, RowFormat.RANKING])
def test_rows_that_no_trainer_of_trl_takes_are_data_sets_of_text(
    kind: RowFormat, rows: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    from trl.data_utils import is_conversational

    given = list(of_format(rows, kind))
    data = loaded(given, tmp_path)
    assert list(data) == given
    assert not is_conversational(data[0])


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_what_was_exported_is_imported_and_exported_again(name: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    given = rows.get(name, [])
    if not given:
        assert name in {"first_error_pairs", "convincing_errors", "merged_step_labels"}, "nothing was found"
        return
    kind = row_format(given)
    if kind not in IMPORTED or CONSTRUCTIONS[name].signed:
        return
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "rows.jsonl", Path(folder) / "again.jsonl"
        write_jsonl(given, path)
        trees = list(read_published(path))
        write_published(trees, again, IMPORTED[kind])
        found = [json.loads(line) for line in again.read_text(encoding="utf-8").splitlines()]
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, given))


def test_a_policy_learns_from_anybodys_preferences(tmp_path: Path) -> None:
    prompt = "Make 46 from 3 5 7 8\n"
    good, bad = " 7 * 5 = 35 | 3 8 35\n", " 7 + 5 = 12 | 3 8 12\n"
    given = [
        {"prompt": prompt, "chosen": good, "rejected": bad, "margin": 0.5},
        {"prompt": prompt, "chosen": bad, "rejected": " 8 + 5 = 13 | 3 7 13\n", "margin": 0.1},
        {"prompt": [{"role": "user", "content": prompt + good}], "rejected": " 35 * 8 = 280 | 3 280\n",
         "chosen": [{"role": "assistant", "content": " 35 + 8 = 43 | 3 43\n 43 + 3 = 46 | 46"}]},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    with TreeStore(tmp_path / "trees.jsonl") as store:
        for tree in read_published(tmp_path / "rows.jsonl"):
            store.append(tree)
    learn = {
        "objective": "dpo",
        "data": [{"name": "sibling_pairs", "min_gap": 1.0}],
        "training": {"learning_rate": 1e-3, "tokens_per_batch": 512},
        "stop_by": "nothing",
    }
    recipe = small_recipe(
        judge=None, objective=None, search=None, trees={"stored": str(tmp_path / "trees.jsonl")}, learn=[learn],
        problems={"test": 0}, evaluation={"samples": 1, "best_of": [1], "majority": []},
    )  # fmt: skip
    run_recipe(recipe, tmp_path / "run", progress=Progress(Console(file=io.StringIO())))
    record = json.loads((tmp_path / "run" / "stages" / "policy-1.json").read_text(encoding="utf-8"))
    assert record["examples"] == len(given)
    assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()
