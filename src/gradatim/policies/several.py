"""Several policies in one: each draws its share of the steps, as the mentors of a collaborative search do."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from gradatim.budget import POLICY, Account
from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.draws import draws_below
from gradatim.tree import Node, Tree


class SeveralPolicies:
    """Lets several policies propose the steps below each node in turn (the mentors of Sun et al., 2025,
    arXiv:2506.16962).

    All write into one tree: they have one tokenizer, or all write text. Each is charged to an account of its name, and
    the steps say who wrote them (``Step.source``). The budget is spent by one policy after the other.

    Args:
        policies: by their names.
        sampling: how steps are sampled where a call does not say; each policy's own way by default.

    Raises:
        GradatimError: if there are none.
    """

    source = "several"
    account = POLICY

    def __init__(self, policies: Mapping[str, Policy], sampling: Sampling | None = None) -> None:
        if not policies:
            raise GradatimError("there are no policies to propose steps; name at least one")
        self.policies = dict(policies)
        self._given = sampling
        self.sampling = sampling or next(iter(self.policies.values())).sampling

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """Continue each open node, its draws divided among the policies; see
        :class:`gradatim.policies.base.Policy`. What each draws of a node comes together."""
        asked = draws_below(nodes, n, steps)
        starts = [node for node, _ in asked]
        first = [node.draws for node in starts]  # so that draws that are asked for one by one are divided too
        drawn: list[list[Node]] = [[] for _ in asked]
        for place, (name, policy) in enumerate(self.policies.items()):
            counts = [
                _turns(place, begun, count, len(self.policies)) for begun, (_, count) in zip(first, asked, strict=True)
            ]
            ends = deque(
                await policy.extend(
                    starts, counts, steps=steps, sampling=sampling or self._given, account=account or Account(name)
                )
            )
            for below, start, count in zip(drawn, starts, counts, strict=True):
                while count and ends and start in ends[0].path():
                    below.append(ends.popleft())
                    count -= 1
        return [end for below in drawn for end in below]

    def release(self, tree: Tree) -> None:
        """Have all policies forget a tree that is done."""
        for policy in self.policies.values():
            policy.release(tree)

    async def close(self) -> None:
        """Have all policies let go of what they hold."""
        for policy in self.policies.values():
            await policy.close()


def _turns(place: int, begun: int, count: int, policies: int) -> int:
    """How many of the draws from number ``begun`` on are the turn of the policy at ``place``."""
    return len(range((place - begun) % policies, count, policies))
