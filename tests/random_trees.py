"""Random trees for property-based tests: every field that a node has takes other values than its default."""

from __future__ import annotations

from hypothesis import strategies as st

from gradatim import Budget, EndReason, Node, Problem, Step, Tree
from gradatim.budget import Spent

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(max_size=4)
ACCOUNTS = st.dictionaries(
    st.sampled_from(["policy", "scorer", "judge"]),
    st.builds(Spent, st.integers(0, 16), st.integers(0, 17), st.none() | st.just(100)),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Few different tokens, so that many siblings are identical."""
    tokens = tuple(draw(st.lists(st.integers(0, 2), max_size=2)))
    return Step(
        tokens=tokens,
        text=draw(st.text(max_size=5)),
        log_probabilities=tuple(-float(token) for token in tokens) if draw(st.booleans()) else (),
        end=draw(st.sampled_from(EndReason)),
        observation=draw(st.sampled_from([(), (7,)])),
        observation_text=draw(st.sampled_from(["", "seen\n"])),
    )


@st.composite
def trees(draw: st.DrawFn, *, problem_id: str | None = None, max_steps: int = 12) -> Tree:
    """A tree that was grown by up to ``max_steps`` proposals, some of them drawn, and annotated."""
    problem = Problem(
        draw(st.text(max_size=5)) if problem_id is None else problem_id,
        draw(st.text(max_size=5)),
        draw(st.none() | st.text(max_size=3)),
        draw(st.dictionaries(NAMES, JSON_VALUES, max_size=2)),
    )
    tree = Tree(
        problem,
        prompt_tokens=draw(st.lists(st.integers(0, 9), max_size=3)),
        seed=draw(st.integers(0, 2**32)),
        budget=Budget(draw(st.none() | st.integers(100, 200)), draw(ACCOUNTS)),
    )
    tree.metadata = draw(st.dictionaries(NAMES, JSON_VALUES, max_size=2))
    for _ in range(draw(st.integers(0, max_steps))):
        parent = draw(st.sampled_from(tree.nodes))
        key = tree.draw(parent) if draw(st.booleans()) else None
        tree.add(parent, draw(steps()), key=key)
    for node in tree.nodes:
        _annotate(draw, node)
    return tree


def _annotate(draw: st.DrawFn, node: Node) -> None:
    node.scores = draw(st.dictionaries(NAMES, NUMBERS, max_size=2))
    node.counts = draw(st.dictionaries(NAMES, st.integers(0, 9), max_size=2))
    node.reward = draw(st.none() | st.sampled_from([0.0, 0.5, 1.0]))
    node.correct = draw(st.none() | st.booleans())
    node.answer = draw(st.none() | st.text(max_size=3))
    node.notes = draw(st.dictionaries(NAMES, st.none() | st.text(max_size=3) | st.lists(st.booleans()), max_size=2))
