"""Process and outcome reward models of the small language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedTokenizerBase, set_seed

from experiments.real_text.documents import Solution, gsm8k_solutions, prmbench_solutions
from experiments.real_text.error_injection import corrupted_solutions
from experiments.real_text.progress import say
from experiments.real_text.settings import RewardModelSettings, Source
from experiments.real_text.trees import outcome_labels, packed_tokens, path_tokens, process_labels, solution_trees
from gradatim.errors import GradatimError
from gradatim.objectives import ProcessReward
from gradatim.training import TrainingResult, TrainingSettings, load_process_reward_model, train
from gradatim.tree import Tree

_SHORTEST_TREE = 100  # tokens; nearly all trees of a GSM8K problem have more, so no more problems are needed


def synthetic_solutions(data: Path, problems: int, corruptions: int, seed: int) -> Iterator[Solution]:
    """The reference solutions of ``problems`` random training problems, each followed by wrong ones made of it."""
    random = Random(seed)
    references = gsm8k_solutions(data, "train")
    for reference in random.sample(references, min(problems, len(references))):
        yield reference
        yield from corrupted_solutions(reference, corruptions, random)


def training_trees(
    data: Path, tokenizer: PreTrainedTokenizerBase, settings: RewardModelSettings
) -> dict[Source, list[Tree]]:
    """The trees of each source, up to its part of the training tokens.

    Raises:
        GradatimError: if a source has fewer tokens than that.
    """
    budget = settings.tokens // len(settings.sources)
    result: dict[Source, list[Tree]] = {}
    for source in settings.sources:
        trees = _trees_of(source, data, tokenizer, settings)
        Random(settings.seed).shuffle(trees)
        result[source], tokens = [], 0
        while trees and tokens < budget:
            result[source].append(trees.pop())
            tokens += packed_tokens(result[source][-1])
        if tokens < budget:
            raise GradatimError(f"{source} has only {tokens} training tokens of {budget}; lower the setting tokens")
    return result


def new_reward_model(language_model: Path, settings: RewardModelSettings) -> Any:
    """The language model with a new head, or the same architecture with random weights."""
    set_seed(settings.seed)
    if settings.pretrained:
        return load_process_reward_model(language_model, labels=1)
    config = AutoConfig.from_pretrained(language_model, num_labels=1, classifier_dropout=0.0)
    return AutoModelForTokenClassification.from_config(config)


def train_reward_model(
    data: Path,
    language_model: Path,
    tokenizer: PreTrainedTokenizerBase,
    settings: RewardModelSettings,
    folder: Path,
    name: str,
) -> tuple[TrainingResult, dict[str, Any]]:
    """Train one reward model, and say on what: trees, tokens and labels by source."""
    trees = training_trees(data, tokenizer, settings)
    everything = [tree for part in trees.values() for tree in part]
    labels = process_labels(everything) if settings.supervision == "process" else outcome_labels(everything)
    say(f"{name}: {sum(map(packed_tokens, everything)):,} tokens, {len(labels):,} labels")
    result = train(
        new_reward_model(language_model, settings),
        ProcessReward(),
        labels,
        TrainingSettings(
            output_dir=folder,
            learning_rate=settings.learning_rate,
            tokens_per_batch=settings.row,
            seed=settings.seed,
            bf16=True,
            save_every=100,
            resume=True,
        ),
        on_update=_progress(name),
    )
    return result, {
        "updates": result.updates,
        "trees": {source: len(part) for source, part in trees.items()},
        "tokens": {source: sum(map(packed_tokens, part)) for source, part in trees.items()},
        "labels": len(labels),
        "right_labels": sum(label.targets[0] for label in labels) / len(labels),
        "final_accuracy": result.history[-1]["accuracy"] if result.history else None,
    }


def _trees_of(
    source: Source, data: Path, tokenizer: PreTrainedTokenizerBase, settings: RewardModelSettings
) -> list[Tree]:
    solutions: Sequence[Solution]
    if source == "synthetic":
        enough = settings.tokens // _SHORTEST_TREE
        solutions = list(synthetic_solutions(data, enough, settings.corruptions, settings.seed))
    else:
        solutions = prmbench_solutions(data, "train")
    _, ends = solution_trees(solutions, tokenizer)
    fitting = [solution for solution, end in zip(solutions, ends, strict=True) if path_tokens(end) <= settings.longest]
    return solution_trees(fitting, tokenizer)[0]


def _progress(name: str) -> Any:
    def report(made: int, planned: int) -> None:
        if made == planned or made % max(1, planned // 5) == 0:
            say(f"{name}: update {made} of {planned}")

    return report
