"""A tree's steps in a tree of their own, to be continued or read in another way while the first stays as it is."""

from __future__ import annotations

import weakref
from dataclasses import replace

from gradatim.engine.identity import tokenizer_identity
from gradatim.policies.base import Policy
from gradatim.tree import Node, Step, Tree


class Apart:
    """The trees in which a prover completes what a policy began.

    What the prover writes is none of the policy's steps, so that neither votes nor training mistake it for one. Both
    trees spend the same budget. Where the prover has another tokenizer, it reads the policy's steps as text.

    Args:
        prover: the policy that continues the steps; without one, they are text.
    """

    def __init__(self, prover: Policy | None = None) -> None:
        tokenizer = getattr(prover, "tokenizer", None)
        self._tokenizer = None if tokenizer is None else tokenizer_identity(tokenizer)
        self._trees: weakref.WeakKeyDictionary[Tree, dict[int, Node]] = weakref.WeakKeyDictionary()

    def counterpart(self, node: Node) -> Node:
        """The node that stands for ``node`` in the prover's tree."""
        tree = node.tree
        known = self._trees.setdefault(tree, {})
        if not known:
            known[0] = Tree(tree.problem, seed=tree.seed, budget=tree.budget).root
        as_tokens = tree.tokenizer is not None and tree.tokenizer == self._tokenizer and not tree.has_text_steps
        for each in node.path()[1:]:
            if each.id not in known:
                assert each.parent is not None, "only the root has no parent"
                above = known[each.parent.id]
                step = replace(each.step, source="")  # whatever it calls itself, the prover did not draw it
                if not as_tokens:
                    step = replace(step, tokens=(), log_probabilities=(), observation=())
                known[each.id] = _at(above, step)
            mine = known[each.id]  # which the prover may have written itself, or before the environment answered
            seen = (each.step.observation if as_tokens else (), each.step.observation_text)
            if (mine.step.observation, mine.step.observation_text) != seen:
                mine.step = replace(mine.step, observation=seen[0], observation_text=seen[1])
        return known[node.id]

    def forget(self, tree: Tree) -> Tree | None:
        """Drop what is kept of a tree that is done; returns the tree that stood for it."""
        known = self._trees.pop(tree, None)
        return None if known is None else known[0].tree


def _at(parent: Node, step: Step) -> Node:
    """The node of a step below ``parent``, which is not counted as drawn if it is there."""
    size = len(parent.tree)
    node = parent.tree.add(parent, step)
    if len(parent.tree) == size:
        node.multiplicity -= 1
    return node
