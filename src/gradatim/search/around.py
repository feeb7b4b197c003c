"""Searches that work around any other search: they run it again, or change what its policy and scorer are asked.

The inner search, its scorer and the tree's budget work as they do alone. What stands around a policy or a scorer hands
on all that it does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from gradatim.budget import Account
from gradatim.part import PartOf, options
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import ChoiceRule
from gradatim.search.decisions import DECISION, Decision, decide
from gradatim.tree import Node, Tree

InnerSearch = Annotated[Search, PartOf("search")]
"""An option that holds the search that is worked around."""


@options
class SearchAround(Search):
    """A search with another one within.

    It needs a scorer and chooses its answer as the inner search does; ``choose_by`` takes the place of
    the inner search's rule, with this search's ``aggregate``.

    Attributes:
        enlarged_by: its own options that make more solutions when they are raised; the inner search's count too.
    """

    enlarged_by: ClassVar[tuple[str, ...]] = ()

    search: InnerSearch
    """The search that is worked around: its name, or a section with its `name` and options."""

    @property
    def is_guided(self) -> bool:  # type: ignore[override]
        return self.search.is_guided

    @property
    def grows_with(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.enlarged_by, *(f"search.{name}" for name in self.search.grows_with))

    @property
    def rule(self) -> ChoiceRule | None:
        return self.choose_by or self.search.rule

    def choose(self, tree: Tree, scorer: str | None) -> Node | None:
        """The solution that the inner search chooses, or that ``choose_by`` says; see :meth:`Search.choose`."""
        return self.search.choose(tree, scorer) if self.choose_by is None else super().choose(tree, scorer)


class PolicyAround:
    """A policy that asks another one; a subclass changes what :meth:`extend` asks for.

    Args:
        policy: writes the steps.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.sampling = policy.sampling
        self.account = policy.account

    @property
    def source(self) -> str:
        """The name of whoever writes the steps."""
        return self.policy.source

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """See :meth:`gradatim.policies.base.Policy.extend`."""
        return await self.policy.extend(nodes, n, steps=steps, sampling=sampling, account=account)

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        self.policy.release(tree)

    async def close(self) -> None:
        """Let go of what is held between searches."""
        await self.policy.close()


class ScorerAround:
    """A scorer that asks another one; a subclass changes or watches what :meth:`score` asks for.

    Args:
        scorer: judges the steps, and names the scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.name = scorer.name

    async def score(self, nodes: Sequence[Node]) -> None:
        """See :meth:`gradatim.scorers.base.Scorer.score`."""
        await self.scorer.score(nodes)

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        self.scorer.release(tree)


def decide_also(node: Node, decision: Decision, why: str) -> None:
    """Write on a node what was decided around its search, behind what the search itself gave as its reason."""
    said = node.notes.get(DECISION)
    if said is None or said["decision"] != decision:
        decide([node], decision, why)
    elif why not in said["why"]:
        decide([node], decision, f"{said['why']}; {why}")
