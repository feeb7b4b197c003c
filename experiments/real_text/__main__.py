"""``python -m experiments.real_text --data DIR --output DIR``: the report's commands, one after the other.

What each made stays on disk, so a later call goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from experiments.real_text.prepare import Sizes, prepare_records, prepare_trees
from experiments.real_text.tables import tables
from experiments.real_text.trees import Source
from gradatim.cli.recipes import pretrain, run
from gradatim.engine.loading import load_tokenizer
from gradatim.errors import GradatimError
from gradatim.recipes import load_recipe
from gradatim.store.files import write_json, write_text

MAIN = "main setting"
"""The name of the setting of which all others change one thing."""

_HERE = Path(__file__).parent
_LIKELIHOOD = "evaluation.scorer={uncertainty: {model: policy, key: likelihood}}"
_BOTH: tuple[Source, ...] = ("synthetic", "prmbench")


@dataclass(frozen=True, slots=True)
class Setting:
    """One reward model; the defaults are the main setting.

    Attributes:
        sources: of the training solutions, in equal parts by tokens.
        corruptions: wrong solutions made of each GSM8K problem.
        outcomes: learn the outcome at the last step, in the place of every step's label.
        pretrained: begin with the language model's weights, or with random ones.
        small: updates of a quarter of the tokens at half the learning rate.
    """

    sources: tuple[Source, ...] = _BOTH
    corruptions: int = 3
    outcomes: bool = False
    pretrained: bool = True
    small: bool = False


SETTINGS = {
    MAIN: Setting(),
    "synthetic errors only": Setting(("synthetic",)),
    "outcome, synthetic errors only": Setting(("synthetic",), outcomes=True),
    "random initialisation": Setting(pretrained=False),
    "PRMBench only": Setting(("prmbench",)),
    "one error a problem": Setting(corruptions=1),
    "one error a problem, small updates": Setting(corruptions=1, small=True),
}


def experiment(
    data: Path,
    output: Path,
    sizes: Sizes | None = None,
    *,
    seeds: int = 2,
    pretraining: Sequence[str] = (),
    learning: Sequence[str] = (),
) -> dict[str, Any]:
    """Prepare, pretrain, and train and measure every reward model; returns what the tables show.

    Args:
        data: the folder that holds gsm8k/ and prmbench/.
        output: where everything is kept.
        sizes: how much is prepared.
        seeds: how many models of the main setting; of the others there is one.
        pretraining, learning: changes to the recipes of the language model and of the reward models (``KEY=VALUE``).
    """
    sizes = sizes or Sizes()
    task = f"task.data={data}"
    made: dict[str, list[str]] = {"language_model": [], "random": ["training.updates=0", "training.held_out=0"]}
    for name, changes in made.items():
        if not (output / name / "training_log.json").is_file():
            pretrain(str(_HERE / "language-model.yaml"), output / name, [task, *pretraining, *changes])
    prepare_records(data, output / "records", sizes)
    tokenizer = load_tokenizer(output / "language_model")
    given = [task, *_benchmarks(data, output), *learning]
    results: dict[str, Any] = {
        "language_model": json.loads((output / "language_model" / "training_log.json").read_text(encoding="utf-8")),
        "likelihood": _run(output, "likelihood", [*given, _LIKELIHOOD, "learn=[]", "trees={}"]),
        "runs": {},
    }
    for seed in range(seeds):
        for name, setting in SETTINGS.items():
            if seed == 0 or name == MAIN:
                folder = f"{name.replace(',', '').replace(' ', '-').lower()}-{seed}"
                stored = output / "trees" / f"{folder}.jsonl"
                prepared = prepare_trees(
                    data, stored, tokenizer, sizes, sources=setting.sources, corruptions=setting.corruptions,
                    outcomes=setting.outcomes, seed=seed,
                )  # fmt: skip
                changes = [*given, f"seed={seed}", f"trees.stored={stored}", *_small(given, setting)]
                report = _run(output, folder, changes, "language_model" if setting.pretrained else "random")
                results["runs"].setdefault(name, []).append({"prepared": prepared, **report})
    write_json(output / "results.json", results)
    return results


def _benchmarks(data: Path, output: Path) -> list[str]:
    """The recipe's paths, as they are here."""
    records, raw = output / "records", data / "prmbench"
    here = {
        "0.data": json.dumps([f"{raw}/test_*.jsonl", f"{raw}/multi_solutions.jsonl"]),
        "0.validation": records / "prmbench-validation.jsonl",
        "1.data": records / "synthetic-test.jsonl",
        "1.validation": records / "synthetic-validation.jsonl",
        "2.data": records / "calculations.jsonl",
        "2.validation": records / "synthetic-validation.jsonl",
        **{f"{place}.data": records / "solutions.jsonl" for place in range(3, 7)},
    }
    return [f"evaluation.benchmarks.{key}={value}" for key, value in here.items()]


def _small(given: Sequence[str], setting: Setting) -> list[str]:
    """The changes that make updates small."""
    if not setting.small:
        return []
    recipe: Any = load_recipe(_HERE / "reward-model.yaml", given)
    training = recipe.learn[0].training
    rate, tokens = training.learning_rate / 2, training.tokens_per_batch // 4
    return [f"learn.0.training.learning_rate={rate}", f"learn.0.training.tokens_per_batch={tokens}"]


def _run(output: Path, name: str, changes: Sequence[str], model: str = "language_model") -> dict[str, Any]:
    """What a run's report says of the scorer."""
    folder = output / "reward_models" / name
    run(str(_HERE / "reward-model.yaml"), None, [f"policy.model={output / model}", *changes], folder, False)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {"benchmarks": report["benchmarks"], "training": report["stages"].get("scorer-1", {})}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.real_text", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds gsm8k/ and prmbench/")
    parser.add_argument("--output", type=Path, required=True, help="where everything is kept; a later call goes on")
    parser.add_argument("--threads", type=int, default=1, help="cores to compute on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        results = experiment(arguments.data, arguments.output)
    except GradatimError as error:
        print(error, file=sys.stderr)
        return 1
    text = tables(results)
    write_text(arguments.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
