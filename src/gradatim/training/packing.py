"""Tree packing: many paths of a tree in one row, every token once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.tree import Node, depth_first


@dataclass(frozen=True, eq=False)
class PackedRow:
    """One row of tokens that holds trees, whole or cut down to the nodes that somebody asked for.

    The paths of a tree share their beginnings, so a batch of paths repeats most of its tokens. Here every node is laid
    out once, in depth-first order: a node's step tokens, then its observation, then everything below it. The subtree
    of a node is therefore one contiguous stretch of the row, and what a token may be seen by is a single number: the
    end of its node's subtree. Token ``q`` sees token ``k`` exactly when ``k <= q < visible_until[k]``; this keeps
    siblings apart, and trees too. Position ids count tokens along the path, so a model computes for every token what
    it would compute on the token's own path alone.

    Invariants: a token sees itself; it sees exactly its path's tokens before it; the tokens it sees have the
    positions ``0 .. position_ids[q]``, each once.

    For ``T`` tokens and ``N`` nodes:

    Attributes:
        nodes (``N``): the nodes in the order of the row.
        input_ids (``T``): the tokens.
        position_ids (``T``): each token's place in its path, the prompt's first token at 0.
        visible_until (``T``): one past the last row position that may attend to the token.
        recorded (``T``): log-probability under the policy that sampled the token; NaN where it is unknown.
        step_starts (``N``), step_ends (``N``): each node's step tokens are ``step_starts[i] .. step_ends[i] - 1``.
        previous (``N``): row position of the token just before the step, -1 where there is none.
    """

    nodes: tuple[Node, ...]
    input_ids: Tensor
    position_ids: Tensor
    visible_until: Tensor
    recorded: Tensor
    step_starts: Tensor
    step_ends: Tensor
    previous: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]


@dataclass(frozen=True, eq=False)
class ScoredTokens:
    """Which next-token distributions give the step tokens of some nodes their log-probabilities.

    The first tokens of siblings are predicted at one position, the parent's last, so there are fewer predictions than
    tokens. For ``K`` predictions and ``M`` step tokens:

    Attributes:
        predictors (``K``): row positions whose next-token distribution is needed, ascending, each once.
        predictor_of (``M``): which of the predictions is the token's own.
        token_ids (``M``): the tokens.
        node_of (``M``): which of the scored nodes the token belongs to.
        recorded (``M``): the log-probabilities recorded at sampling; NaN where unknown.
    """

    predictors: Tensor
    predictor_of: Tensor
    token_ids: Tensor
    node_of: Tensor
    recorded: Tensor


def pack_row(nodes: Iterable[Node]) -> PackedRow:
    """Lay the given nodes and all their ancestors, of one tree or several, in one row.

    Trees follow one another in the order of their first node. The observation of a node below which nothing was asked
    for conditions nothing, so it is left out: a step is read at its own last token, as scorers read it.

    Raises:
        GradatimError: if a step has no tokens.
    """
    ordered = depth_first(nodes)
    index = {id(node): i for i, node in enumerate(ordered)}
    has_children = {id(node.parent) for node in ordered}
    input_ids: list[int] = []
    position_ids: list[int] = []
    recorded: list[float] = []
    starts: list[int] = []
    ends: list[int] = []
    stops: list[int] = []  # one past the node's observation
    lasts: list[int] = []  # row position of the path's last token when the node is over, -1 while the path is empty
    depths: list[int] = []  # tokens on the path when the node is over
    previous: list[int] = []
    for node in ordered:
        if not node.is_root and not node.step.tokens:
            raise GradatimError(
                f"a step of problem {node.tree.problem.id!r} is text without tokens, so it cannot be trained "
                "on as it is; write the tree in the model's tokens first (gradatim.text.transcript.tokenized)"
            )
        parent = -1 if node.parent is None else index[id(node.parent)]
        step = node.step
        tokens = step.tokens_with_observation if id(node) in has_children else step.tokens
        depth = 0 if parent < 0 else depths[parent]
        previous.append(-1 if parent < 0 else lasts[parent])
        starts.append(len(input_ids))
        ends.append(len(input_ids) + len(step.tokens))
        input_ids.extend(tokens)
        position_ids.extend(range(depth, depth + len(tokens)))
        recorded.extend(step.log_probabilities or (float("nan"),) * len(step.tokens))
        recorded.extend((float("nan"),) * (len(tokens) - len(step.tokens)))
        stops.append(len(input_ids))
        lasts.append(len(input_ids) - 1 if tokens else previous[-1])
        depths.append(depth + len(tokens))
    subtree_stops = stops.copy()
    for i in range(len(ordered) - 1, -1, -1):  # children come after their parents, so backwards they are done first
        parent_node = ordered[i].parent
        if parent_node is not None:
            above = index[id(parent_node)]
            subtree_stops[above] = max(subtree_stops[above], subtree_stops[i])
    lengths = torch.tensor(stops) - torch.tensor(starts)
    return PackedRow(
        nodes=tuple(ordered),
        input_ids=torch.tensor(input_ids, dtype=torch.long),
        position_ids=torch.tensor(position_ids, dtype=torch.long),
        visible_until=torch.repeat_interleave(torch.tensor(subtree_stops), lengths),
        recorded=torch.tensor(recorded, dtype=torch.float32),
        step_starts=torch.tensor(starts),
        step_ends=torch.tensor(ends),
        previous=torch.tensor(previous),
    )


def scored_tokens(row: PackedRow, nodes: Sequence[int]) -> ScoredTokens:
    """Find what predicts the step tokens of the nodes with these indices in ``row.nodes``.

    Observation tokens were not written by the policy and are never among them.

    Raises:
        GradatimError: if one of the nodes is a prompt, or nothing precedes its step that could predict it.
    """
    chosen = torch.tensor(nodes, dtype=torch.long)
    for i in nodes:
        if row.nodes[i].is_root:
            raise GradatimError("a prompt is not a step that the policy wrote; leave the root out of the training data")
    starts, ends, previous = row.step_starts[chosen], row.step_ends[chosen], row.previous[chosen]
    if bool((previous < 0).any()):
        problem = row.nodes[nodes[int((previous < 0).nonzero()[0])]].tree.problem.id
        raise GradatimError(
            f"the tree of problem {problem!r} has a prompt without tokens, so nothing predicts its first step; "
            "tokenize the prompt with at least a start token"
        )
    lengths = ends - starts
    node_of = torch.repeat_interleave(torch.arange(len(nodes)), lengths)
    offsets = torch.cumsum(lengths, 0) - lengths
    positions = torch.arange(int(lengths.sum())) - offsets[node_of] + starts[node_of]
    before = torch.where(positions == starts[node_of], previous[node_of], positions - 1)
    predictors, predictor_of = torch.unique(before, return_inverse=True)
    return ScoredTokens(predictors, predictor_of, row.input_ids[positions], node_of, row.recorded[positions])
