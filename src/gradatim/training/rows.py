"""The tensors of a row of terms, and how terms are divided into rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gradatim.objectives.quantities import TermIndex
from gradatim.supervision.terms import Term
from gradatim.training.packing import pack_row, scored_tokens
from gradatim.tree import Node

_OPEN_ROWS = 32  # rows that are kept open for a tree that still fits; more would make planning quadratic
_NONE = float("nan")  # a target that is not given


@dataclass(frozen=True, eq=False)
class TrainingRow(TermIndex):
    """The tensors of one forward pass: a packed row and the terms that are read off it.

    For ``L`` row tokens and ``K`` predictions, beside what :class:`~gradatim.objectives.quantities.TermIndex` says:

    Attributes:
        input_ids (``L``), position_ids (``L``), visible_until (``L``): see
            :class:`~gradatim.training.packing.PackedRow`.
        predictors (``K``), predictor_of (``T``), token_ids (``T``): see
            :class:`~gradatim.training.packing.ScoredTokens`.
        step_ends (``S``): row position of each step's last token; of an empty step, of the token before it.
        step_befores (``S``): row position of the token before each step.
        reference (``T``): reference log-probability of each scored token, NaN where there is none; at first what the
            tree recorded.
        behaviour (``T``): log-probability of each scored token under the policy that sampled it, NaN where the tree
            recorded none.
        confidence (``T``): how sure the reference was of what follows before each scored token, see
            :func:`~gradatim.training.forward.token_confidences`; NaN until it is measured, which trees do not record.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible_until: Tensor
    predictors: Tensor
    predictor_of: Tensor
    token_ids: Tensor
    step_ends: Tensor
    step_befores: Tensor
    reference: Tensor
    behaviour: Tensor
    confidence: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name; ``TrainingRow(**it)`` restores the row."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device) -> TrainingRow:
        """The row on a device."""
        return TrainingRow(**{name: value.to(device) for name, value in self.tensors().items()})

    def recorded(self) -> dict[str, Tensor]:
        """What is known of the scored tokens before the forward pass, by the names that objectives have for it."""
        return {"reference": self.reference, "behaviour": self.behaviour, "confidence": self.confidence}

    def index(self) -> dict[str, Tensor]:
        """Those that say which tokens make which steps, groups and terms."""
        return {field.name: getattr(self, field.name) for field in fields(TermIndex)}


def build_row(terms: Sequence[Term]) -> TrainingRow:
    """Pack everything that the terms read into one row.

    Raises:
        GradatimError: if a term contains a prompt (see :func:`~gradatim.training.packing.scored_tokens`).
    """
    groups = [group for term in terms for group in term.groups]
    row = pack_row(node for group in groups for node in group.nodes)
    place = {id(node): i for i, node in enumerate(row.nodes)}
    scored: dict[int, int] = {}  # index in the row -> index among the scored steps
    step_of = [scored.setdefault(place[id(node)], len(scored)) for group in groups for node in group.nodes]
    tokens = scored_tokens(row, list(scored))
    steps = torch.tensor(list(scored))
    starts, ends, previous = row.step_starts[steps], row.step_ends[steps], row.previous[steps]
    return TrainingRow(
        token_step=tokens.node_of,
        lengths=ends - starts,
        step_of=torch.tensor(step_of),
        group_of=torch.tensor([i for i, group in enumerate(groups) for _ in group.nodes]),
        step_weight=_numbers(value for group in groups for value in group.weights or (1.0,) * len(group.nodes)),
        step_target=_numbers(value for group in groups for value in group.targets or (_NONE,) * len(group.nodes)),
        group_term=torch.tensor([i for i, term in enumerate(terms) for _ in term.groups]),
        target=_numbers(value for term in terms for value in term.targets or (_NONE,) * len(term.groups)),
        weight=_numbers(term.weight for term in terms),
        label_smoothing=_numbers(term.label_smoothing for term in terms),
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        visible_until=row.visible_until,
        predictors=tokens.predictors,
        predictor_of=tokens.predictor_of,
        token_ids=tokens.token_ids,
        step_ends=torch.where(ends > starts, ends - 1, previous),
        step_befores=previous,
        reference=tokens.recorded,
        behaviour=tokens.recorded,
        confidence=torch.full_like(tokens.recorded, _NONE),
    )


def _numbers(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)


def plan_rows(terms: Iterable[Term], tokens_per_row: int, *, seed: int | None = 0) -> list[list[Term]]:
    """Divide terms into rows of at most ``tokens_per_row`` packed tokens.

    The terms of a tree stay in one row as long as they fit. A larger tree is divided into several rows along its
    depth-first order, that is by subtrees, and shared ancestors are repeated in each; every term is in exactly one
    row, whole, so sums over rows are exact. A single term above the limit has a row of its own.

    Args:
        terms: the terms of the loss.
        tokens_per_row: the largest row, in tokens.
        seed: the order in which trees are laid down; ``None`` keeps the order given.
    """
    trees: dict[int, list[Term]] = {}
    for term in terms:
        trees.setdefault(id(term.groups[0].nodes[0].tree), []).append(term)
    order = list(trees.values())
    if seed is not None:
        random.Random(seed).shuffle(order)
    rows: list[list[Term]] = []
    free: list[tuple[int, list[Term]]] = []  # (tokens left, row), the open rows
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


def _divide(terms: list[Term], limit: int) -> list[tuple[list[Term], int]]:
    """Cut one tree's terms into pieces of at most ``limit`` packed tokens, each with its cost."""
    whole: set[int] = set()
    cost = sum(_add(term, whole) for term in terms)
    if cost <= limit:
        return [(terms, cost)]
    pieces: list[tuple[list[Term], int]] = []
    present: set[int] = set()
    piece: list[Term] = []
    cost = 0
    for term in sorted(terms, key=_depth_first_key):
        more = _add(term, present)
        if piece and cost + more > limit:
            pieces.append((piece, cost))
            present = set()
            piece, cost, more = [], 0, _add(term, present)
        piece.append(term)
        cost += more
    pieces.append((piece, cost))
    return pieces


def _add(term: Term, present: set[int]) -> int:
    """Add a term's nodes and their ancestors to those present, and return the tokens that came with them."""
    tokens = 0
    for group in term.groups:
        for start in group.nodes:
            node: Node | None = start
            while node is not None and id(node) not in present:
                present.add(id(node))
                tokens += len(node.step.tokens_with_observation)
                node = node.parent
    return tokens


def _depth_first_key(term: Term) -> tuple[int, ...]:
    return tuple(node.id for node in term.ends[0].path())
