"""What a policy has read and written of a tree, and has paid for."""

from __future__ import annotations

from collections import defaultdict

from gradatim.budget import Account, Budget
from gradatim.tree import Node

_Part = tuple[int, bool]  # of the node of this id the step, or what the environment wrote after it


class PaidPaths:
    """Knows what each account has paid for of a tree, and has it pay for what is read for the first time.

    Args:
        budget: of the tree.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._known: defaultdict[str, dict[_Part, int]] = defaultdict(dict)

    def unknown(self, node: Node, account: Account) -> list[_Part]:
        """What the account has paid for neither as read nor as written on the path to ``node``: steps by their nodes'
        ids, and what the environment wrote after them."""
        known = self._known[account.name]
        return [part for each in node.path() for part in _parts(each) if part not in known]

    def charge(self, node: Node, path_tokens: int, account: Account) -> bool:
        """Pay for reading what is unknown on the path to ``node``, which has ``path_tokens`` in all.

        Returns whether the budget could pay; if not, nothing is charged.
        """
        unknown, known = self.unknown(node, account), self._known[account.name]
        if not unknown:
            return True
        tokens = max(0, path_tokens - sum(known.get(part, 0) for each in node.path() for part in _parts(each)))
        if not self._budget.take(account, read=tokens):
            return False
        known.update(dict.fromkeys(unknown, 0))
        known[unknown[0]] = tokens
        return True

    def mark_written(self, node: Node, tokens: int, account: Account) -> None:
        """Note that the policy wrote the node's step itself, so that the account never pays for reading it."""
        self._known[account.name].setdefault((node.id, False), tokens)


def _parts(node: Node) -> list[_Part]:
    observed = node.step.observation or node.step.observation_text
    return [(node.id, False), (node.id, True)] if observed else [(node.id, False)]
