"""Values without a verifier: how sure the policy was of what it wrote after a step."""

from __future__ import annotations

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.scorers.confidence import future_likelihood
from gradatim.search.decisions import SIMULATED
from gradatim.tree import EndReason, Tree
from gradatim.values.base import Values


@part
class Foresight(Values):
    r"""How likely the policy finds what follows a step, and no outcome (Genius, Xu et al., 2025, arXiv:2504.08672).

    .. math:: F(s) = \frac{1}{n} \sum_{i=1}^n \frac{1}{|y_i|} \log \pi(y_i \mid \text{path to } s)

    over the ``n`` futures :math:`y` that the tree has below the step, each as often as it was drawn, in nats a token,
    to 0. A future is a solution that came to its end, or was simulated so far (`phi_decoding` simulates one of each
    step that it considers); a step that ends its solution is its own. A step without a future has no value. Differences
    of two siblings are those of their advantages, as in the paper, which subtracts the foresight of the step before.
    Steps need the log-probabilities that their policy recorded.
    """

    async def __call__(self, tree: Tree, context: Context) -> None:
        for node in tree.nodes:
            node.scores.pop(self.key, None)
            node.counts.pop(self.key, None)
        sums = dict.fromkeys(tree.nodes, 0.0)
        for leaf in tree.leaves():
            if leaf.step.end is EndReason.BUDGET or (leaf.open and SIMULATED not in leaf.notes):
                continue
            for node in leaf.path()[1:-1] if leaf.open else leaf.path()[1:]:
                sums[node] += leaf.multiplicity * future_likelihood(node, leaf)
                node.counts[self.key] = node.counts.get(self.key, 0) + leaf.multiplicity
        for node, total in sums.items():
            if self.key in node.counts:
                node.scores[self.key] = total / node.counts[self.key]
