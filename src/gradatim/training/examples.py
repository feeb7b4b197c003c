"""The tensors of a row of examples, and how examples are divided into rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gradatim.supervision.terms import Example
from gradatim.training.packing import pack_row, scored_tokens, token_count
from gradatim.tree import Node

_OPEN_ROWS = 32  # rows that are kept open for a tree that still fits; more would make planning quadratic


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """The tensors of one forward pass: a packed row and the examples that are read off it.

    For ``T`` row tokens, ``K`` predictions, ``M`` scored tokens, ``S`` scored nodes, ``N`` examples of ``G`` groups in
    all, and ``Q`` memberships of a node in a group:

    Attributes:
        input_ids (``T``), position_ids (``T``), visible_until (``T``): see
            :class:`~gradatim.training.packing.PackedRow`.
        predictors (``K``), predictor_of (``M``), token_ids (``M``), node_of (``M``): see
            :class:`~gradatim.training.packing.ScoredTokens`.
        reference (``M``): reference log-probability of each scored token, NaN where there is none.
        member_node (``Q``), member_group (``Q``): node ``member_node[i]`` belongs to group ``member_group[i]``.
        group_ends (``G``): row position of the last step token of each group.
        lengths (``G``): scored tokens in each group.
        group_term (``G``): the example that a group is of, ascending; examples may have different numbers of groups.
        weights (``N``), targets (``N``): of the examples.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible_until: Tensor
    predictors: Tensor
    predictor_of: Tensor
    token_ids: Tensor
    node_of: Tensor
    reference: Tensor
    member_node: Tensor
    member_group: Tensor
    group_ends: Tensor
    lengths: Tensor
    group_term: Tensor
    weights: Tensor
    targets: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name; ``TrainingRow(**it)`` restores the row."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def sum_groups(self, token_values: Tensor) -> Tensor:
        """Sum a value per scored token, (M,), over each group: (G,)."""
        # Every scored node is a member of some group, so there are at least as many memberships as nodes.
        nodes = token_values.new_zeros(self.member_node.shape[0]).index_add(0, self.node_of, token_values)
        sums = token_values.new_zeros(self.group_ends.shape[0])
        return sums.index_add(0, self.member_group, nodes[self.member_node])


def build_row(examples: Sequence[Example]) -> TrainingRow:
    """Pack everything that the examples read into one row.

    Raises:
        GradatimError: if an example contains a prompt (see :func:`~gradatim.training.packing.scored_tokens`).
    """
    row = pack_row(node for example in examples for group in example.groups for node in group)
    place = {id(node): i for i, node in enumerate(row.nodes)}
    scored: dict[int, int] = {}  # index in the row -> index among the scored nodes
    member_node: list[int] = []
    member_group: list[int] = []
    group_last: list[int] = []
    for group in (group for example in examples for group in example.groups):
        for node in group:
            member_node.append(scored.setdefault(place[id(node)], len(scored)))
            member_group.append(len(group_last))
        group_last.append(place[id(group[-1])])
    tokens = scored_tokens(row, list(scored))
    members, groups = torch.tensor(member_node), torch.tensor(member_group)
    node_lengths = (row.step_ends - row.step_starts)[torch.tensor(list(scored))]
    lengths = torch.zeros(len(group_last), dtype=torch.long).index_add(0, groups, node_lengths[members])
    last = torch.tensor(group_last)
    # An empty step is read where its path stood before it.
    ends = torch.where(row.step_ends[last] > row.step_starts[last], row.step_ends[last] - 1, row.previous[last])
    return TrainingRow(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        visible_until=row.visible_until,
        predictors=tokens.predictors,
        predictor_of=tokens.predictor_of,
        token_ids=tokens.token_ids,
        node_of=tokens.node_of,
        reference=tokens.recorded,
        member_node=members,
        member_group=groups,
        group_ends=ends,
        lengths=lengths,
        group_term=torch.tensor([i for i, example in enumerate(examples) for _ in example.groups]),
        weights=torch.tensor([example.weight for example in examples], dtype=torch.float32),
        targets=torch.tensor([example.target for example in examples], dtype=torch.float32),
    )


def plan_rows(examples: Iterable[Example], tokens_per_row: int, *, seed: int | None = 0) -> list[list[Example]]:
    """Divide examples into rows of at most ``tokens_per_row`` packed tokens.

    The examples of a tree stay in one row as long as they fit. A larger tree is divided into several rows along its
    depth-first order, that is by subtrees, and shared ancestors are repeated in each; every example is in exactly one
    row, whole, so sums over rows are exact. A single example above the limit has a row of its own.

    Args:
        examples: the terms of the loss.
        tokens_per_row: the largest row, in tokens.
        seed: the order in which trees are laid down; ``None`` keeps the order given.
    """
    trees: dict[int, list[Example]] = {}
    for example in examples:
        trees.setdefault(id(example.groups[0][0].tree), []).append(example)
    order = list(trees.values())
    if seed is not None:
        random.Random(seed).shuffle(order)
    rows: list[list[Example]] = []
    free: list[tuple[int, list[Example]]] = []  # (tokens left, row), the open rows
    for tree in order:
        for piece, cost in _divide(tree, tokens_per_row):
            for i, (left, row) in enumerate(free):
                if cost <= left:
                    row.extend(piece)
                    free[i] = (left - cost, row)
                    break
            else:
                rows.append(piece)
                free.append((tokens_per_row - cost, piece))
                if len(free) > _OPEN_ROWS:
                    free.remove(min(free, key=lambda item: item[0]))
    return rows


def _divide(examples: list[Example], limit: int) -> list[tuple[list[Example], int]]:
    """Cut one tree's examples into pieces of at most ``limit`` packed tokens, each with its cost."""
    whole: set[int] = set()
    cost = sum(_add(example, whole) for example in examples)
    if cost <= limit:
        return [(examples, cost)]
    pieces: list[tuple[list[Example], int]] = []
    present: set[int] = set()
    piece: list[Example] = []
    cost = 0
    for example in sorted(examples, key=_depth_first_key):
        more = _add(example, present)
        if piece and cost + more > limit:
            pieces.append((piece, cost))
            present = set()
            piece, cost, more = [], 0, _add(example, present)
        piece.append(example)
        cost += more
    pieces.append((piece, cost))
    return pieces


def _add(example: Example, present: set[int]) -> int:
    """Add an example's nodes and their ancestors to those present, and return the tokens that came with them."""
    tokens = 0
    for group in example.groups:
        for start in group:
            node: Node | None = start
            while node is not None and id(node) not in present:
                present.add(id(node))
                tokens += token_count(node)
                node = node.parent
    return tokens


def _depth_first_key(example: Example) -> tuple[int, ...]:
    return tuple(node.id for node in example.groups[0][-1].path())
