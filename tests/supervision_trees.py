"""Random trees for property tests of supervision: any shape, values, counts, ends and observations."""

from __future__ import annotations

from hypothesis import strategies as st

from gradatim.tree import EndReason, Problem, Step, Tree

VALUE = "value"


@st.composite
def valued_trees(draw: st.DrawFn, max_nodes: int = 14) -> Tree:
    """A tree whose nodes have or lack a value (0, 0.25, ..., 1) and a count; leaves may be finished and graded."""
    tree = Tree(Problem("p", "prompt\n"))
    for token in range(draw(st.integers(0, max_nodes))):
        parents = [node for node in tree.nodes if node.open]
        end = draw(st.sampled_from([EndReason.BOUNDARY] * 4 + list(EndReason)))
        observation = draw(st.sampled_from(["", "", f"[{token}]"]))
        step = Step((token,), f"step {token}\n", end=end, observation_text=observation)
        node = tree.add(draw(st.sampled_from(parents)), step)
        if draw(st.integers(0, 4)):
            node.scores[VALUE] = draw(st.integers(0, 4)) / 4
        if draw(st.booleans()):
            node.counts[VALUE] = draw(st.integers(1, 8))
        if node.finished and draw(st.booleans()):
            node.reward = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return tree
