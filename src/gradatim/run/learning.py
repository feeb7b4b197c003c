"""The stages in which models learn: from what constructions make of trees, or from the task's worked solutions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes.recipe import Recipe
from gradatim.run.context import Run
from gradatim.run.fitting import curve, fit, outcome, training_settings
from gradatim.run.held_out import HeldOutLoss, SampledAccuracy, held_out_thresholds
from gradatim.run.nothing_learned import no_terms, same_targets
from gradatim.run.one_training import Training
from gradatim.run.stages import Stage
from gradatim.run.trees import grow_trees
from gradatim.supervision.terms import Term, path_term
from gradatim.tasks.base import Task
from gradatim.tasks.demonstrations import Demonstration, worked_solutions
from gradatim.text.prompts import ChatFormat, prompt_tokens, solution_tokens
from gradatim.text.transcript import in_tokens_of
from gradatim.training.adapters import merged
from gradatim.tree import EndReason, Node, Step, Tree


def learn(run: Run, stage: Stage, number: int, trees: Sequence[Tree]) -> None:
    """Run one training on the ``trees`` of its round; skipped if it was done.

    Trees in other tokens than the model's (another tokenizer's, or a server's text) are written in its own.

    Raises:
        GradatimError: if there is nothing to learn from, says why; see also :func:`gradatim.training.train`.
    """
    (entry,) = stage.learns
    training = Training.of(run, stage, entry, number)
    target, checkpoints = training.target, run.folder.path / "checkpoints" / stage.name / "training"
    run.begin(stage.name, target, checkpoints)
    if run.folder.record(stage.name).get("done") and target.is_dir():
        run.progress.line(f"{training.title}: done before")
        return
    held_out_trees = [] if entry.demonstrations is not None else _held_out_trees(training)
    held_out, _ = training.terms(held_out_trees)
    if entry.demonstrations is not None:
        terms = _demonstrated(training)
    else:
        terms, table = training.terms(trees)
        run.folder.update(stage.name, 0.0, learned_from=[asdict(each) for each in table])
        if not terms:
            raise no_terms(run.recipe, entry, trees)
        if same := same_targets(run.recipe, entry, terms, trees):
            raise same
    _fit(training, terms, held_out, held_out_trees, checkpoints)


def _held_out_trees(training: Training) -> list[Tree]:
    """The trees of the validation problems, where training is stopped by its loss on them."""
    run = training.run
    problems = run.problems("validation") if training.learn.measure == "loss" and run.recipe.search is not None else []
    return grow_trees(run, training.number, "validation", problems) if problems else []


def _demonstrated(training: Training) -> list[Term]:
    run = training.run
    demonstrations = find_demonstrations(run.recipe, run.task)
    grown = {problem.id for problem in run.problems("train")}
    if shared := sum(problem.id in grown for problem, _ in demonstrations):
        run.progress.line(f"{shared:,} of the problems to fine-tune on are grown too: train has too few others")
    chat = run.recipe.policy.chat
    return [path_term(node) for node in solution_nodes(demonstrations, training.tokenizer, chat)]


def _fit(
    training: Training,
    terms: Sequence[Term],
    held_out: Sequence[Term],
    held_out_trees: Sequence[Tree],
    checkpoints: Path,
) -> None:
    """Train the model on ``terms`` and save it, with the stage's record.

    Where it is measured on validation problems, the state that does best is the one that is kept.
    """
    run, entry, started, what = training.run, training.learn, time.perf_counter(), training.what
    evaluate: Callable[[Any], float] | None = None
    if entry.measure == "accuracy" and (problems := run.problems("validation")):
        evaluate = SampledAccuracy(run, resolve_model(training.path), problems, entry.validation_samples)
    elif held_out:
        evaluate = HeldOutLoss(entry.objective, held_out, entry.training.tokens_per_batch)
    known: dict[str, Any] = {}

    def work(model: PreTrainedModel) -> None:
        with run.progress.stage(f"{training.title}, on {len(terms):,} {what}") as stage:
            result = fit(
                model,
                entry.objective,
                terms,
                training_settings(entry.training, checkpoints, run.recipe.seed, training.name),
                stage=stage,
                evaluate=evaluate,
                measure=training.measure,
                reference=training.reference,
            )
            trained: PreTrainedModel = merged(result.model, resolve_model(training.path), entry.objective.heads)
            if training.judges:
                in_own = [in_tokens_of(tree, training.tokenizer, training.chat) for tree in held_out_trees]
                thresholds = held_out_thresholds(trained, in_own, run.task, entry.training.tokens_per_batch)
                known["thresholds"] = {**asdict(thresholds), "problems": len(held_out_trees)}
            else:
                thresholds = None
            measure, sign = training.measure
            metrics = {measure: sign * result.evaluations[result.best_update]} if result.evaluations else {}
            training.save(trained, f"{len(terms):,} {what}", metrics, thresholds)
            stage.note(outcome(result, *training.measure))
        known.update(curve(result))

    options = run.recipe.model(entry.model)
    set_seed(run.seed(training.stage.name.replace("-", " ")) % 2**31)  # of a new head too
    run.models.train(
        entry.model,
        training.path,
        options,
        entry.training,
        work,
        as_reward=training.judges,
        becomes=str(training.target),
    )
    seconds = time.perf_counter() - started
    run.folder.update(training.stage.name, seconds, done=True, examples=len(terms), what=what, **known)


def find_demonstrations(recipe: Recipe, task: Task) -> list[Demonstration]:
    """The worked solutions that the recipe learns from; of problems that trees are not grown on, if there are enough.

    Raises:
        GradatimError: if the task has fewer than the recipe asks for.
    """
    wanted = 0 if recipe.demonstrated is None else recipe.demonstrated.demonstrations or 0
    found = worked_solutions(task, "train", wanted, behind=recipe.problems.train)
    if not found:
        raise GradatimError(
            f"learning from demonstrations needs worked solutions, and the task {task.name} has none that its verifier "
            "accepts; give its records a field 'solution', or remove the entry of learn"
        )
    if len(found) < wanted:
        raise GradatimError(
            f"the task {task.name} has {len(found):,} worked solutions to train on, fewer than the {wanted:,} asked "
            f"for; lower demonstrations in learn to {len(found)} or below"
        )
    return found


def solution_nodes(
    demonstrations: Iterable[Demonstration], tokenizer: Any, chat: ChatFormat | None = None
) -> list[Node]:
    """Every demonstration as a tree of its prompt and one step, the whole solution with its end, as a policy sees it.

    Raises:
        GradatimError: if a prompt cannot be put; see :func:`gradatim.text.prompts.prompt_tokens`.
    """
    nodes = []
    for problem, solution in demonstrations:
        tree = Tree(problem, prompt_tokens=prompt_tokens(tokenizer, problem, chat))
        tokens = solution_tokens(tokenizer, solution, chat)
        nodes.append(tree.add(tree.root, Step(tuple(tokens), solution, end=EndReason.END_OF_TEXT)))
    return nodes
