"""The stages that learn from trees: the process reward model, and the policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, set_seed

from gradatim.engine.loading import load_merged_model, load_tokenizer
from gradatim.evaluation.steps import Thresholds
from gradatim.models import resolve_model
from gradatim.objectives import Dpo, Objective, ProcessReward, Sft, StepDpo
from gradatim.recipes.schema import DpoOptions, ObjectiveOptions, PairOptions, PolicyTraining, SftOptions
from gradatim.run.context import Run
from gradatim.run.fitting import curve, fit, outcome, reported, saved_dtype, training_settings
from gradatim.run.growing import VALUE, grow_trees
from gradatim.run.measures import HeldOutLabels, SampledAccuracy, held_out_thresholds
from gradatim.run.nothing_learned import no_examples, no_labels, same_labels
from gradatim.run.parts import make_chat, pick_device
from gradatim.supervision import (
    Construction,
    FirstErrorPairs,
    RightSolutions,
    SiblingPairs,
    SolutionPairs,
    StepLabels,
    Term,
)
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import in_tokens_of
from gradatim.training import TrainingResult
from gradatim.training.model_card import Kind, write_model_card
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.saving import save_model, save_process_reward_model
from gradatim.training.trainer import Reference
from gradatim.tree import Tree


def train_scorer(run: Run, trees: Sequence[Tree]) -> None:
    """Train the process reward model on step labels of the first policy's ``trees``; skipped if it was done.

    Trees of the validation problems are grown alike, to stop by and to choose the thresholds by. Trees in other tokens
    than the reward model's (another tokenizer's, or a server's text) are written in its own.
    """
    options = run.recipe.scorer
    if options is None or not options.train:
        return
    checkpoints = run.folder.path / "checkpoints" / "scorer"
    if is_done(run, "scorer", run.scorer_path, checkpoints, "Training the process reward model"):
        return
    base = run.policy_path(0) if options.init == "policy" else options.init
    source = resolve_model(base)
    tokenizer, chat = load_tokenizer(source), make_chat(run.recipe.policy)
    if not tokenizer.chat_template:
        chat = None

    def own(grown: Sequence[Tree]) -> list[Tree]:
        return [in_tokens_of(tree, tokenizer, chat) for tree in grown]

    problems = run.problems("validation")
    held_out_trees = own(grow_trees(run, 1, "validation", problems)) if problems else []
    started = time.perf_counter()
    labels, validation = _labels(run, own(trees)), _labels(run, held_out_trees)
    if not labels:
        raise no_labels(run.recipe, trees)
    if len({label.targets for label in labels}) == 1:
        raise same_labels(run.recipe, trees, labels[0].targets[0])
    set_seed(run.seed("scorer") % 2**31)
    model = load_process_reward_model(source).to(pick_device(run.recipe.policy.device))
    held_out = HeldOutLabels(validation, options.training.tokens_per_batch) if validation else None
    with run.progress.stage(f"Training the process reward model on {len(labels):,} step labels") as stage:
        result = fit(
            model,
            ProcessReward(),
            labels,
            training_settings(options.training, checkpoints, run.recipe.seed),
            stage=stage,
            evaluate=None if held_out is None else reported(stage, held_out.negative_loss, "held-out loss", -1.0),
        )
        thresholds = held_out_thresholds(result.model, held_out_trees, run.task, options.training.tokens_per_batch)
        learned = f"{len(labels):,} step labels of trees"
        card = _card(run, "process-reward-model", run.scorer_path.name, base, learned, result, chat, thresholds)
        dtype = saved_dtype(options.training)
        save_process_reward_model(result.model, tokenizer, run.scorer_path, chat, dtype=dtype, also=card)
        stage.note(outcome(result, "held-out loss", -1.0))
    run.folder.update(
        "scorer",
        time.perf_counter() - started,
        done=True,
        labels=len(labels),
        thresholds={**asdict(thresholds), "problems": len(held_out_trees)},
        **curve(result),
    )


def train_policy(run: Run, round_number: int, trees: Sequence[Tree]) -> None:
    """Train the policy of one round on that round's ``trees``; skipped if it was done."""
    options = run.recipe.objective
    title = f"Training the policy by {'' if options is None else options.name}, round {round_number}"
    target = Path(run.policy_path(round_number))
    checkpoints = run.folder.path / "checkpoints" / f"round-{round_number}" / "training"
    if options is None or is_done(run, f"policy-{round_number}", target, checkpoints, title):
        return
    source, reference = resolve_model(run.policy_path(round_number - 1)), cast(Reference, "tree")
    if run.recipe.trees.stored is not None:
        # nobody knows which model wrote them: its tokens may be others, and its log-probabilities are no reference
        tokenizer, chat = load_tokenizer(source), make_chat(run.recipe.policy)
        trees, reference = [in_tokens_of(tree, tokenizer, chat) for tree in trees], "initial"
    objective, construction = policy_objective(options, run.recipe.supervision.pairs)
    terms = [term for tree in trees for term in construction(tree)]
    if not terms:
        raise no_examples(run.recipe, trees, construction.what)
    fit_policy(
        run,
        stage_name=f"policy-{round_number}",
        title=title,
        source=source,
        target=target,
        checkpoints=checkpoints,
        objective=objective,
        terms=terms,
        what=f"{construction.what} of trees",
        options=options,
        reference=reference,
    )


def fit_policy(
    run: Run,
    *,
    stage_name: str,
    title: str,
    source: str,
    target: Path,
    checkpoints: Path,
    objective: Objective,
    terms: Sequence[Term],
    what: str,
    options: PolicyTraining,
    reference: Reference = "tree",
) -> None:
    """Train the policy ``source`` on ``terms`` and save it as ``target``, with its card and the stage's record.

    Where there are validation problems, the state that solves most of them is the one that is kept.

    Args:
        run: the run.
        stage_name: of the stage's record, and of its seed.
        title: what the progress line says.
        source, target: the model before, and the folder of the model after.
        checkpoints: where training leaves what it needs to go on.
        objective, terms: what is learned.
        what: what the terms are called, in the plural.
        options: how.
        reference: where the reference log-probabilities of an objective that has some come from.
    """
    started = time.perf_counter()
    tokenizer = load_tokenizer(source)
    set_seed(run.seed(stage_name.replace("-", " ")) % 2**31)
    model = load_merged_model(AutoModelForCausalLM, source, dtype=torch.float32).to(
        pick_device(run.recipe.policy.device)
    )
    measure = None
    if problems := run.problems("validation"):
        measure = SampledAccuracy(run, tokenizer, problems, options.validation_samples)
    with run.progress.stage(f"{title}, on {len(terms):,} {what}") as stage:
        result = fit(
            model,
            objective,
            terms,
            training_settings(options.training, checkpoints, run.recipe.seed),
            stage=stage,
            evaluate=None if measure is None else reported(stage, measure, "held-out pass@1", 1.0),
            reference=reference,
        )
        learned = f"{len(terms):,} {what}"
        chat = make_chat(run.recipe.policy)
        card = _card(run, "policy", target.name, run.recipe.policy.model, learned, result, chat)
        save_model(result.model, tokenizer, target, dtype=saved_dtype(options.training), also=card)
        stage.note(outcome(result, "held-out pass@1", 1.0))
    run.folder.update(stage_name, time.perf_counter() - started, done=True, examples=len(terms), **curve(result))


def policy_objective(options: ObjectiveOptions, pairs: PairOptions) -> tuple[Objective, Construction]:
    """The objective, and what makes its terms of trees."""
    if isinstance(options, SftOptions):
        return Sft(), RightSolutions()
    settings = options.model_dump(include={"beta", "label_smoothing", "nll", "margin"})
    if isinstance(options, DpoOptions):
        return Dpo(**settings), SolutionPairs(max_pairs=options.max_pairs)
    shared = pairs.model_dump(exclude={"mode"})
    if pairs.mode == "first_error":
        return StepDpo(**settings), FirstErrorPairs(value=VALUE, **shared)
    return StepDpo(**settings), SiblingPairs(value=VALUE, pairing=pairs.mode, **shared)


def _labels(run: Run, trees: Sequence[Tree]) -> list[Term]:
    assert run.recipe.scorer is not None
    labels = StepLabels(value=VALUE, **run.recipe.scorer.labels.model_dump())
    return [label for tree in trees for label in labels(tree)]


def is_done(run: Run, stage: str, target: Path, checkpoints: Path, title: str) -> bool:
    """Whether a stage that makes the model ``target`` was done before; then a line says so. Else it begins."""
    run.begin(stage, target, checkpoints)
    done = bool(run.folder.record(stage).get("done")) and target.is_dir()
    if done:
        run.progress.line(f"{title}: done before")
    return done


def _card(
    run: Run,
    kind: Kind,
    title: str,
    base: str,
    learned: str,
    result: TrainingResult,
    chat: ChatFormat | None,
    thresholds: Thresholds | None = None,
) -> Callable[[Path], None]:
    """Writes the model card into the folder of a trained model."""
    measure, sign = ("held-out loss", -1.0) if kind == "process-reward-model" else ("held-out pass@1", 1.0)

    def write(folder: Path) -> None:
        write_model_card(
            folder,
            title=title,
            kind=kind,
            base_model=base,
            recipe=run.recipe.model_dump(mode="json", exclude_none=True),
            data=f"It learned from {learned} of the task {run.recipe.task.name}.",
            chat=chat,
            step_end=run.task.step_end,
            metrics={measure: sign * result.evaluations[result.best_update]} if result.evaluations else {},
            labels=2 if kind == "process-reward-model" and result.model.config.num_labels == 2 else 1,
            threshold=None if thresholds is None else thresholds.accuracy,
            first_error_threshold=None if thresholds is None else thresholds.first_error,
        )

    return write
