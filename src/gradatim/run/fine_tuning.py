"""The stage before all others: the policy learns worked solutions of the task, by imitation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradatim.engine.loading import load_tokenizer
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.objectives import Sft
from gradatim.recipes.schema import Recipe
from gradatim.run.context import Run
from gradatim.run.learning import fit_policy, is_done
from gradatim.run.parts import make_chat
from gradatim.supervision.terms import path_term
from gradatim.tasks.base import Task
from gradatim.tasks.demonstrations import Demonstration, worked_solutions
from gradatim.text.prompts import ChatFormat, prompt_tokens, solution_tokens
from gradatim.tree import EndReason, Node, Step, Tree

_STAGE = "fine-tuning"
_TITLE = "Fine-tuning the policy"


def fine_tune(run: Run) -> None:
    """Teach the recipe's policy worked solutions of training problems; skipped if it was done or is not wanted.

    The policy that comes out is the one that is searched, and trained further.

    Raises:
        GradatimError: if the task has too few worked solutions.
    """
    options = run.recipe.fine_tuning
    checkpoints = run.folder.path / "checkpoints" / _STAGE
    if options is None or is_done(run, _STAGE, run.fine_tuned_path, checkpoints, _TITLE):
        return
    demonstrations = find_demonstrations(run.recipe, run.task)
    grown = {problem.id for problem in run.problems("train")}
    if shared := sum(problem.id in grown for problem, _ in demonstrations):
        run.progress.line(f"{shared:,} of the problems to fine-tune on are grown too: train has too few others")
    source = resolve_model(run.recipe.policy.model)
    nodes = solution_nodes(demonstrations, load_tokenizer(source), make_chat(run.recipe.policy))
    fit_policy(
        run,
        stage_name=_STAGE,
        title=_TITLE,
        source=source,
        target=run.fine_tuned_path,
        checkpoints=checkpoints,
        objective=Sft(),
        terms=[path_term(node) for node in nodes],
        what="worked solutions",
        options=options,
    )


def find_demonstrations(recipe: Recipe, task: Task) -> list[Demonstration]:
    """The worked solutions that the recipe fine-tunes on; of problems that trees are not grown on, if there are enough.

    Raises:
        GradatimError: if the task has fewer than the recipe asks for.
    """
    assert recipe.fine_tuning is not None
    wanted = recipe.fine_tuning.demonstrations
    found = worked_solutions(task, "train", wanted, behind=recipe.problems.train)
    if not found:
        raise GradatimError(
            f"fine_tuning needs worked solutions, and the task {task.name} has none that its verifier accepts; "
            "give its records a field 'solution', or remove the fine_tuning section"
        )
    if len(found) < wanted:
        raise GradatimError(
            f"the task {task.name} has {len(found):,} worked solutions to train on, fewer than the {wanted:,} asked "
            f"for; lower fine_tuning.demonstrations to {len(found)} or below"
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
