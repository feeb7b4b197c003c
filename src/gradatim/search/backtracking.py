"""Greedy step search that goes back: the best step is followed as long as it is good, else the search returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide
from gradatim.search.proposals import judge_solutions
from gradatim.search.ranking import best, path_score
from gradatim.tree import Node, Tree


@part
class Backtracking(Search):
    """Greedy search by step scores that backs up where all steps are bad (Ma et al., 2023, arXiv:2310.10080).

    Below the step that it stands on it draws ``branch`` steps and goes to the best one of at least ``threshold``. Where
    none is that good, it goes back to the step before and takes the next best there, and so on towards the prompt;
    there it draws again. It ends with a solution that is reached by good steps alone, or when the budget is spent.
    After ``expansions`` it completes the best open step that it has seen, without looking any further.
    """

    title: ClassVar[str] = "greedy search with backtracking"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("expansions",)

    branch: PositiveInt = 4
    """Steps that are drawn at a time."""
    threshold: float = 0.5
    """The score that a step needs to be followed."""
    expansions: PositiveInt = 32
    """How many times steps are drawn."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        guide = self._guide(scorer)
        reached = await self._descend(tree, policy, guide, sampling)
        if reached is None and not tree.budget.spent:
            open_steps = [node for node in tree.nodes[1:] if node.open] or [tree.root]
            start = best(open_steps, 1, guide.name, self.aggregate)
            decide(start, "expanded", "the best open step, where no good ones led to a solution")
            leaves = await policy.extend(start, 1, steps=None, sampling=sampling)
            await judge_solutions(leaves, guide, self.aggregate)
        if answer is not None:
            await give_answers(tree, answer)

    async def _descend(self, tree: Tree, policy: Policy, guide: Scorer, sampling: Sampling | None) -> Node | None:
        """Follow good steps, depth first; returns the solution that they lead to, if they lead to one."""
        ahead: list[Node] = []  # good steps that were not followed yet; the next one to take is the last
        seen: set[Node] = set()
        node, expansions = tree.root, 0
        while expansions < self.expansions and not tree.budget.spent:
            drawn = list(dict.fromkeys(await policy.extend([node], self.branch, sampling=sampling)))
            expansions += 1
            await guide.score([child for child in drawn if not child.step.end.cuts_off])
            new = [child for child in drawn if child not in seen]
            seen.update(new)
            good = self._good(new, guide.name)
            decide(set(new) - set(good), "pruned", f"below {self.threshold:g} by {guide.name}, or without a score")
            if not good:
                decide([node], "dropped", f"none of its {len(drawn)} steps has {self.threshold:g} by {guide.name}")
            ahead += reversed(good)
            node = ahead.pop() if ahead else tree.root
            if node.finished:
                decide(ahead, "pruned", "better steps led to a solution")
                return node
            if not node.is_root:
                decide([node], "expanded", f"the best step that is left, by {guide.name}")
        return None

    def _good(self, nodes: Sequence[Node], name: str) -> list[Node]:
        """The steps that may be followed, best first."""
        scored = [node for node in nodes if node.open or node.finished]
        return [node for node in best(scored, len(scored), name, self.aggregate) if self._is_good(node, name)]

    def _is_good(self, node: Node, name: str) -> bool:
        score = path_score(node, name, self.aggregate)
        return score is not None and score >= self.threshold
