"""Solutions that constructions write, as the task judges them."""

from __future__ import annotations

from collections.abc import Iterable

from gradatim.event_loop import run_to_end
from gradatim.supervision.base import Construction
from gradatim.supervision.terms import Term
from gradatim.tasks.base import Task, grade_nodes
from gradatim.tasks.truth import StepTruth
from gradatim.tree import Node, Tree


def verified(terms: Iterable[Term], construction: Construction, tree: Tree, task: Task) -> tuple[list[Term], int]:
    """Those of the terms that a construction gave of a tree whose solutions are right, and how many are not.

    Asked for is the verdict on whole solutions that the construction wrote itself, on trees of their own, and whose
    verdict it does not know; all other terms are kept. The verdicts are written to their ends.
    """
    terms = list(terms)
    written = {end for term in terms for end in term.ends if end.tree is not tree and end.finished}
    unknown = {end for end in written if end.correct is None}
    run_to_end(grade_nodes(unknown, task))
    wrong = {end for end in unknown if not end.correct or not _steps_fit(construction, end, task)}
    kept = [term for term in terms if wrong.isdisjoint(term.ends)]
    return kept, len(terms) - len(kept)


def _steps_fit(construction: Construction, end: Node, task: Task) -> bool:
    if not construction.keeps_steps_right or not isinstance(task, StepTruth):
        return True
    return task.first_error(end.tree.problem, [node.step.text for node in end.path()[1:]]) is None
