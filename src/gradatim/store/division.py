"""Solutions divided into steps anew, as a language model marks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gradatim.budget import Account
from gradatim.errors import GradatimError
from gradatim.policies.aside import Aside, Question
from gradatim.policies.base import Policy
from gradatim.tasks.templates import Template
from gradatim.text.boundaries.marked import marked_steps
from gradatim.tree import EndReason, Node, Step, Tree

MARK = "<step>"
MARKING = """\
Write the solution below again, word for word, and put <step> wherever one step of its reasoning ends and the next \
begins. Change nothing else.

Solution:
{solution}

Solution with <step> between its steps:
"""


class Division:
    """Makes trees whose steps are those that a language model marks in the solutions of other trees.

    The model writes each solution again with marks between the steps (:func:`marked_steps`). A solution that it writes
    otherwise than it is, or without marks, keeps its steps, and is counted; so does one with observations, whose steps
    are actions. The new trees hold text steps, since tokens need not end where steps do now
    (:func:`gradatim.text.transcript.tokenized` writes them in a tokenizer). Rewards, answers and verdicts come with the
    solutions; scores do not, which were of other steps. The model's tokens are charged to the tree's budget.

    Args:
        policy: the model that marks.
        template: the prompt, with ``{solution}`` in it.
        mark: what it puts between steps.
        account: what is charged.
        max_tokens: the longest solution, marks included.

    Attributes:
        divided: how many solutions have new steps.
        kept: how many solutions keep their old ones, by why.

    Raises:
        GradatimError: if the template does not hold the solution once, and the mark.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        template: str = MARKING,
        mark: str = MARK,
        account: Account = Account("divider"),  # noqa: B008 (frozen)
        max_tokens: int = 4096,
    ) -> None:
        if not mark.strip() or mark not in template:
            raise GradatimError(f"the template does not say the mark {mark!r}; name it there, or give the mark it says")
        self._template, self._mark = Template(template, ["solution"]), mark
        self._aside = Aside(policy, account=account, max_tokens=max_tokens, purpose="division")
        self.divided = 0
        self.kept: Counter[str] = Counter()

    async def __call__(self, tree: Tree) -> Tree:
        """The tree with new steps; it shares the budget of the old one, which stays as it is."""
        leaves = [leaf for leaf in tree.leaves() if not leaf.is_root]
        divisions = await self._divisions([leaf for leaf in leaves if not _observed(leaf)])
        divided = Tree(tree.problem, seed=tree.seed, budget=tree.budget)
        divided.metadata = dict(tree.metadata)
        for leaf in leaves:
            steps = divisions.get(leaf, "has observations")
            if isinstance(steps, str):
                self.kept[steps] += 1
                path = [replace(each.step, tokens=(), log_probabilities=(), observation=()) for each in leaf.path()[1:]]
            else:
                self.divided += 1
                ends = [*[EndReason.BOUNDARY] * (len(steps) - 1), leaf.step.end]
                path = [Step((), text, end=end, source=leaf.step.source) for text, end in zip(steps, ends, strict=True)]
            for _ in range(leaf.multiplicity):
                _add(divided, path, leaf)
        return divided

    async def _divisions(self, leaves: Sequence[Node]) -> dict[Node, list[str] | str]:
        """The steps of each solution, or why it has none but the old ones."""
        questions = [Question(leaf, self._template.fill({"solution": leaf.text.strip()})) for leaf in leaves]
        answers = await self._aside.answers(questions)
        found: dict[Node, list[str] | str] = {}
        for leaf, said in zip(leaves, answers, strict=True):
            found[leaf] = marked_steps(leaf.text, said[0].text, self._mark) if said else "not written"
        return found


def _observed(leaf: Node) -> bool:
    return any(each.step.observation or each.step.observation_text for each in leaf.path())


def _add(tree: Tree, path: Sequence[Step], leaf: Node) -> None:
    """Add a solution to a tree, with what is known of it as a whole."""
    node = tree.root
    for step in path:
        node = tree.add(node, step)
    if leaf.answered:
        node.answer = leaf.answer
    node.reward, node.correct = leaf.reward, leaf.correct
    node.notes.update({key: note for key, note in leaf.notes.items() if key == "verdict"})
