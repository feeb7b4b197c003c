"""The stages in which models learn: from what constructions make of trees, or from the task's worked solutions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from gradatim.engine.lending import cast_parameters
from gradatim.engine.loading import load_tokenizer
from gradatim.errors import GradatimError
from gradatim.evaluation.steps import Thresholds
from gradatim.models import resolve_model
from gradatim.part import name_of
from gradatim.recipes.recipe import POLICY, Learn, Recipe
from gradatim.run.context import Run
from gradatim.run.fitting import curve, fit, outcome, reported, training_settings
from gradatim.run.held_out import HeldOutLoss, SampledAccuracy, held_out_thresholds
from gradatim.run.models import make_sampling
from gradatim.run.nothing_learned import no_terms, same_targets
from gradatim.run.stages import FINE_TUNING, Stage
from gradatim.run.trees import grow_trees
from gradatim.supervision.chosen import Choice, chosen_terms
from gradatim.supervision.terms import Term, path_term
from gradatim.tasks.base import Task
from gradatim.tasks.demonstrations import Demonstration, worked_solutions
from gradatim.text.prompts import ChatFormat, prompt_tokens, solution_tokens
from gradatim.text.transcript import in_tokens_of
from gradatim.training import TrainingResult
from gradatim.training.model_card import write_model_card
from gradatim.training.saving import save_model, save_process_reward_model, stored_dtype
from gradatim.training.text_terms import terms_in_tokens_of
from gradatim.tree import EndReason, Node, Step, Tree


@dataclass(frozen=True, slots=True)
class _Training:
    """One training of a run.

    Attributes:
        run: the run.
        stage: its stage.
        number: of its round; 0 before the first.
        path: the model as it is before.
        tokenizer: of the model.
        chat: how the model is put problems.
    """

    run: Run
    stage: Stage
    number: int
    path: str
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat | None

    @property
    def learn(self) -> Learn:
        assert self.stage.learn is not None, "the stage trains a model"
        return self.stage.learn

    @property
    def judges(self) -> bool:
        """Whether the model is one that judges steps, and no policy."""
        return "score" in self.learn.objective.heads

    @property
    def dtype(self) -> torch.dtype | None:
        """The type that the trained weights are saved in; ``None`` for that of the model they came from."""
        return None if self.learn.save_dtype == "auto" else getattr(torch, self.learn.save_dtype)

    @property
    def title(self) -> str:
        if self.stage.name == FINE_TUNING:
            return "Fine-tuning the policy"
        name = "policy" if self.learn.model == POLICY else self.learn.model
        return f"Training the {name} by {name_of(self.learn.objective)}, round {self.number}"

    @property
    def measure(self) -> tuple[str, float]:
        """What the held-out measure is called, and the sign that makes it higher where it is better."""
        return ("held-out pass@1", 1.0) if self.learn.measure == "accuracy" else ("held-out loss", -1.0)


def learn(run: Run, stage: Stage, number: int, trees: Sequence[Tree]) -> None:
    """Run one training on the ``trees`` of its round; skipped if it was done.

    Trees in other tokens than the model's (another tokenizer's, or a server's text) are written in its own.

    Raises:
        GradatimError: if there is nothing to learn from, says why; see also :func:`gradatim.training.train`.
    """
    assert stage.learn is not None, "the stage trains a model"
    target, checkpoints = run.trained_folder(stage), run.folder.path / "checkpoints" / stage.name / "training"
    path = run.path_of(stage.learn.model, (stage.uses or {})[stage.learn.model])
    source = resolve_model(path)
    tokenizer, chat = load_tokenizer(source), run.recipe.policy.chat
    training = _Training(run, stage, number, path, tokenizer, chat if tokenizer.chat_template else None)
    run.begin(stage.name, target, checkpoints)
    if run.folder.record(stage.name).get("done") and target.is_dir():
        run.progress.line(f"{training.title}: done before")
        return
    held_out_trees = [] if stage.learn.demonstrations is not None else _held_out_trees(training)
    held_out, _ = _terms(training, held_out_trees)
    if stage.learn.demonstrations is not None:
        terms, what = _demonstrated(training), "worked solutions"
    else:
        terms, table = _terms(training, trees)
        run.folder.update(stage.name, 0.0, learned_from=[asdict(each) for each in table])
        what = " and ".join(dict.fromkeys(part.what for part in stage.learn.data))
        if not terms:
            raise no_terms(run.recipe, stage.learn, trees)
        if same := same_targets(run.recipe, stage.learn, terms, trees):
            raise same
    _fit(training, terms, held_out, held_out_trees, what, target, checkpoints)


def _held_out_trees(training: _Training) -> list[Tree]:
    """The trees of the validation problems, where training is stopped by its loss on them."""
    run = training.run
    problems = run.problems("validation") if training.learn.measure == "loss" and run.recipe.search is not None else []
    return grow_trees(run, training.number, "validation", problems) if problems else []


def _terms(training: _Training, trees: Iterable[Tree]) -> tuple[list[Term], list[Choice]]:
    own = (in_tokens_of(tree, training.tokenizer, training.chat) for tree in trees)
    terms, table = chosen_terms(own, training.learn.data, training.learn.filters, training.run.task)
    return terms_in_tokens_of(terms, training.tokenizer, training.chat), table


def _demonstrated(training: _Training) -> list[Term]:
    run = training.run
    demonstrations = find_demonstrations(run.recipe, run.task)
    grown = {problem.id for problem in run.problems("train")}
    if shared := sum(problem.id in grown for problem, _ in demonstrations):
        run.progress.line(f"{shared:,} of the problems to fine-tune on are grown too: train has too few others")
    chat = run.recipe.policy.chat
    return [path_term(node) for node in solution_nodes(demonstrations, training.tokenizer, chat)]


def _fit(
    training: _Training,
    terms: Sequence[Term],
    held_out: Sequence[Term],
    held_out_trees: Sequence[Tree],
    what: str,
    target: Path,
    checkpoints: Path,
) -> None:
    """Train the model on ``terms`` and save it as ``target``, with its card and the stage's record.

    Where it is measured on validation problems, the state that does best is the one that is kept.
    """
    run, entry, started = training.run, training.learn, time.perf_counter()
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
                training_settings(entry.training, checkpoints, run.recipe.seed),
                stage=stage,
                evaluate=None if evaluate is None else reported(stage, evaluate, *training.measure),
                reference=_reference(training),
            )
            trained: PreTrainedModel = result.model
            if hasattr(trained, "merge_and_unload"):
                trained = trained.merge_and_unload()
            if training.judges:
                in_own = [in_tokens_of(tree, training.tokenizer, training.chat) for tree in held_out_trees]
                thresholds = held_out_thresholds(trained, in_own, run.task, entry.training.tokens_per_batch)
                known["thresholds"] = {**asdict(thresholds), "problems": len(held_out_trees)}
            else:
                thresholds = None
            _save(training, trained, result, f"{len(terms):,} {what}", thresholds, target)
            # what runs on is what was saved, to the last bit, as in a run that was stopped here and goes on
            cast_parameters(trained, training.dtype or stored_dtype(trained))
            stage.note(outcome(result, *training.measure))
        known.update(curve(result))

    options = run.recipe.model(entry.model)
    set_seed(run.seed(training.stage.name.replace("-", " ")) % 2**31)  # of a new head too
    run.models.train(entry.model, training.path, options, work, as_reward=training.judges, becomes=str(target))
    seconds = time.perf_counter() - started
    run.folder.update(training.stage.name, seconds, done=True, examples=len(terms), what=what, **known)


def _reference(training: _Training) -> Any:
    """Where reference log-probabilities come from; of trees that other models wrote, or nobody knows which, it is the
    model as it is before."""
    stored = training.run.recipe.trees.stored is not None
    if training.learn.reference == "tree" and (stored or training.learn.model != POLICY):
        return "initial"
    return training.learn.reference


def _save(
    training: _Training,
    model: PreTrainedModel,
    result: TrainingResult,
    learned: str,
    thresholds: Thresholds | None,
    target: Path,
) -> None:
    run, dtype = training.run, training.dtype
    measure, sign = training.measure
    of_trees = "" if training.learn.demonstrations is not None else " of trees"

    def card(folder: Path) -> None:
        write_model_card(
            folder,
            title=target.name,
            kind="process-reward-model" if training.judges else "policy",
            base_model=run.recipe.policy.model if training.learn.model == POLICY else training.path,
            recipe=run.recipe.model_dump(mode="json", exclude_none=True),
            data=f"It learned from {learned}{of_trees} of the task {run.recipe.task.name}.",
            chat=training.chat,
            boundary=make_sampling(run.recipe.policy.sampling, run.task).boundary,
            metrics={measure: sign * result.evaluations[result.best_update]} if result.evaluations else {},
            labels=2 if training.judges and model.config.num_labels == 2 else 1,
            threshold=None if thresholds is None else thresholds.accuracy,
            first_error_threshold=None if thresholds is None else thresholds.first_error,
        )

    if training.judges:
        save_process_reward_model(model, training.tokenizer, target, training.chat, dtype=dtype, also=card)
    else:
        save_model(model, training.tokenizer, target, dtype=dtype, also=card)


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
