"""Values from the task's own truth about partial solutions, where it can be computed."""

from __future__ import annotations

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.tasks.base import Task
from gradatim.tasks.truth import StateTruth, state_truth
from gradatim.tree import Tree
from gradatim.values.base import Values


@part
class Oracle(Values):
    """The exact truth: 1 for a step from which the task knows that the solution can still come right, else 0.

    Where a task cannot tell that, but whether every step is right, a step is worth 1 if it and all before it are
    (:func:`gradatim.tasks.truth.state_truth`). No model is run. What other ways to label steps are worth is measured
    against it.
    """

    def truth(self, task: Task) -> StateTruth:
        """The truth of a task.

        Raises:
            GradatimError: if it knows none.
        """
        found = state_truth(task)
        if found is None:
            raise GradatimError(
                f"the task {task.name} knows no truth about single steps, which the values 'oracle' ask for; name "
                "others, such as binary_search"
            )
        return found

    async def __call__(self, tree: Tree, context: Context) -> None:
        truth = self.truth(context.task)
        for node in tree.nodes[1:]:
            node.scores[self.key] = float(truth.holds(tree.problem, node.text))
