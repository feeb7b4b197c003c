"""Corrections: solutions are written on from before their first wrong step until they come right."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, PositiveInt

from gradatim.counts import note_counts
from gradatim.part import PartOf, name_of, part
from gradatim.scorers.base import Context
from gradatim.search.around import decide_also
from gradatim.search.regrowth.base import Regrowth, note_regrown
from gradatim.tasks.base import grade_nodes
from gradatim.tree import Node, Tree
from gradatim.values.base import Values


@part
class Corrections(Regrowth):
    """Right steps in the place of first wrong ones, by the policy itself (Lai et al., 2024, arXiv:2406.18629).

    The corrections of Step-DPO: of each wrong solution the first wrong step is found, and from the prefix before it the
    policy writes solutions until one is right. The paper found such corrections better to learn from than those of a
    stronger model, which are unlikely under the policy. In the paper people or GPT-4 say which step is wrong; here
    ``values`` do: the task's own truth (`oracle`), rollouts (`binary_search`, `backup`), or any scorer (`scored`).

    These values are written under ``key``, and the steps of the right solution that was found are worth 1 there where
    they have no value: `first_error_pairs` of that value prefer them. Where the tree has a right solution from the
    prefix already, be it of the rollouts that found the error, that one serves and nothing is sampled. A solution of
    which it is not known that every step before its first wrong one is right is left as it is.
    """

    key: str = Field(default="corrections", min_length=1)
    """The name of the values that say which steps are wrong, with the corrections among them."""
    values: Annotated[Values, PartOf("values")]
    """What says which step of a solution is wrong; it writes its values under `key`."""
    threshold: float = 0.0
    """Up to which value a step is wrong."""
    limit: PositiveInt = 8
    """Solutions that are written from one prefix at most."""
    max_errors: PositiveInt | None = None
    """Prefixes of a tree that are written on from at most, the first ones of the tree; `null` for all."""

    def __post_init__(self) -> None:
        self._keyed()  # what the values hold may have that key

    @property
    def written(self) -> set[str]:
        return self._keyed().written

    def _keyed(self) -> Values:
        return replace(self.values, key=self.key)

    async def __call__(self, tree: Tree, context: Context) -> None:
        await self._keyed()(tree, context)
        known, policy = len(tree), context.policy()
        prefixes = list(dict.fromkeys(error.parent for error in self._first_errors(tree) if error.parent is not None))
        prefixes = prefixes[: self.max_errors]
        tried, written = dict.fromkeys(prefixes, 0), 0
        for _ in range(self.limit):
            waiting = [prefix for prefix in prefixes if self._correction(prefix) is None]
            if not waiting or tree.budget.spent:
                break
            leaves = await policy.extend(waiting, steps=None)
            await grade_nodes(leaves, context.task)
            note_regrown(leaves, name_of(self), known)
            tried.update((prefix, tried[prefix] + 1) for prefix in waiting)
            written += len(leaves)
        corrections = {prefix: self._correction(prefix) for prefix in prefixes}
        for prefix, correction in corrections.items():
            decide_also(prefix, "expanded", self._why(correction, tried[prefix]))
            for node in () if correction is None else correction.path()[prefix.depth + 1 :]:
                node.scores.setdefault(self.key, 1.0)
        corrected = sum(each is not None for each in corrections.values())
        counts = {"first errors": len(prefixes), "corrected": corrected, "solutions written": written}
        note_counts(tree, self.key, counts)

    def _first_errors(self, tree: Tree) -> list[Node]:
        """The first wrong steps of wrong solutions, in the order of the tree, each once."""
        found: set[Node] = set()
        for leaf in tree.solutions():
            if leaf.correct is False:
                first = next((node for node in leaf.path()[1:] if not self._is_right(node)), None)
                if first is not None and self.key in first.scores:
                    found.add(first)
        return sorted(found, key=lambda node: node.id)

    def _is_right(self, node: Node) -> bool:
        return self.key in node.scores and node.scores[self.key] > self.threshold

    def _correction(self, prefix: Node) -> Node | None:
        """The first right solution behind ``prefix`` whose next step is not one that is known to be wrong."""
        others = (child for child in prefix.children if self.key not in child.scores or self._is_right(child))
        return next((leaf for child in others for leaf in child.leaves() if leaf.finished and leaf.correct), None)

    def _why(self, correction: Node | None, tried: int) -> str:
        cause = f"a first wrong step follows by {self.key}"
        if not tried:
            return f"{cause}, {'and a right solution' if correction else 'and the budget is spent'}"
        return f"{cause}: {'right' if correction else 'not right'} after {tried} more"
