"""Values by binary search: where a wrong solution goes wrong, at the price of a few steps' rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.scorers.base import Context, ModelName
from gradatim.scorers.completions import Completions
from gradatim.tree import Node, Tree
from gradatim.values.base import Values

FIRST_ERROR = "first_error"
"""The key of the note on the first wrong step of a solution."""
_SHARE_BASE, _LENGTH_BASE, _LENGTH = 0.5, 0.9, 500  # the paper's alpha, beta and L


@part
class BinarySearch(Values):
    """First errors of wrong solutions, found by halving (OmegaPRM: Luo et al., 2024, arXiv:2406.06592).

    A step is wrong if none of the solutions completed from it is right, and so are all that follow it: the first error
    of a solution of ``n`` steps is found with at most ``ceil(log2(n)) + 1`` batches of rollouts (one tells that the
    problem can be solved at all). A step below which the tree has a right solution needs none, and what was found of a
    step holds for all solutions that share it; wrong solutions that the tree has are not counted, since these steps are
    looked at because of them. Steps before the first error are worth 1, it and those after it 0;
    ``node.notes["first_error"]`` says on what that rests. The steps of right solutions are worth 1.

    Steps of a problem of which no rollout is right have no value. Where the budget ends within a search, those between
    the last step that is known to be right and the first that is known to be wrong have none.
    """

    samples: ClassVar[bool] = True

    rollouts: PositiveInt = 8
    """Solutions that are completed from each step that is looked at."""
    model: ModelName = "policy"
    """The model that completes them: the policy that is searched with, or another one, a prover."""
    max_solutions: PositiveInt | None = None
    """Wrong solutions of a tree that are searched at most, the most convincing ones first; `null` for all."""
    labels: Literal["hard", "soft"] = "hard"
    """`hard` values are 1 and 0; `soft` ones are shares of right solutions: those before the first error that were
    looked at have one, and no others."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        search = _Search(Completions.by(self.model, context, self.rollouts))
        for leaf in tree.solutions():
            if leaf.correct:
                search.right.update(leaf.path())
                self._write(leaf.path(), leaf.depth, leaf.depth + 1, search)
        wrong = [leaf for leaf in tree.solutions() if leaf.correct is False]
        for leaf in sorted(wrong, key=search.how_convincing, reverse=True)[: self.max_solutions]:
            path = leaf.path()
            good, bad = await search.halve(path)
            if not bad:
                tree.root.notes[FIRST_ERROR] = "no rollout of the problem is right, so that no step is to blame"
                break
            self._write(path, good, bad, search)
            if good + 1 == bad:
                path[bad].notes[FIRST_ERROR] = f"none of {search.count(path[bad])} solutions from here is right"
        search.completions.release(tree)

    def _write(self, path: Sequence[Node], good: int, bad: int, search: _Search) -> None:
        """Value the steps up to the last right one and from the first wrong one on."""
        for node in path[1 : good + 1]:
            if self.labels == "hard" or not node.open:
                node.scores[self.key], node.counts[self.key] = 1.0, search.count(node)
            elif node in search.shares:
                node.scores[self.key], node.counts[self.key] = search.shares[node], search.count(node)
        for node in path[bad:]:
            node.scores[self.key], node.counts[self.key] = 0.0, search.count(path[bad])


@dataclass
class _Search:
    """What is known of the steps of one tree.

    Attributes:
        completions: the rollouts.
        shares: of right solutions, of the steps that were looked at.
        counts: the solutions that these rest on.
        right: steps of right solutions.
        wrong: steps from which no rollout is right.
    """

    completions: Completions
    shares: dict[Node, float] = field(default_factory=dict)
    counts: dict[Node, int] = field(default_factory=dict)
    right: set[Node] = field(default_factory=set)
    wrong: set[Node] = field(default_factory=set)

    def how_convincing(self, leaf: Node) -> float:
        """How far a wrong solution seemed right: by the last of its steps from which the tree has a right solution,
        more for a larger share of these and for less that was written since."""
        shares = ((node, _share(self.completions.known(node))) for node in reversed(leaf.path()))
        last, share = next(((node, share) for node, share in shares if share), (leaf.tree.root, 0.0))
        written = sum(len(each.step.tokens) for each in leaf.path()[last.depth + 1 :])
        return float(_SHARE_BASE ** (1 - share) * _LENGTH_BASE ** (written / _LENGTH))

    async def halve(self, path: Sequence[Node]) -> tuple[int, int]:
        """The last place of a wrong solution's path from which it can come right, as far as is known, and the first
        from which it cannot. No place lies between them unless the budget has ended; 0 is the prompt, -1 is none."""
        self.wrong.add(path[-1])
        bad = next(place for place, node in enumerate(path) if node in self.wrong)
        good = max((place for place in range(bad) if self._came_right(path[place])), default=-1)
        while good + 1 < bad:
            middle = 0 if good < 0 else (good + bad) // 2
            is_right = await self._is_right(path[middle])
            if is_right is None:
                break
            good, bad = (middle, bad) if is_right else (good, middle)
        return good, bad

    def count(self, node: Node) -> int:
        """How many solutions tell what a step is."""
        return self.counts.get(node) or max(1, len(self.completions.known(node)))

    def _came_right(self, node: Node) -> bool:
        return node in self.right or any(each.correct for each in self.completions.known(node))

    async def _is_right(self, node: Node) -> bool | None:
        """Whether any of a step's rollouts is right; ``None`` where the budget ended before that was known."""
        solutions = await self.completions.fresh(node)
        is_right = any(each.correct for each in solutions)
        if not is_right and len(solutions) < self.completions.count:
            return None
        self.shares[node], self.counts[node] = _share(solutions), len(solutions)
        if not is_right:
            self.wrong.add(node)
        return is_right


def _share(solutions: Sequence[Node]) -> float:
    return sum(bool(each.correct) for each in solutions) / len(solutions) if solutions else 0.0
