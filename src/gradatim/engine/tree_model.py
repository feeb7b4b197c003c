"""A transformers model that reads trees: each token of a path once, whatever is asked of the tree and in what order."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradatim.budget import Account
from gradatim.engine.decoder import decoder_of, outputs_of
from gradatim.engine.distributions import Measure
from gradatim.engine.key_value_store import KeyValueStore, NodeState
from gradatim.engine.lending import replace_attention
from gradatim.engine.row_attention import RowPlan
from gradatim.engine.row_pieces import Piece, blocks, on_paths, watch_over
from gradatim.engine.tree_attention import AttentionPlan, attending
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError
from gradatim.tree import Node, Step, Tree, depth_first

_LOGITS = 1 << 25  # at once, beside what a policy needs


@dataclass
class ModelStatistics:
    """What a model did so far.

    Attributes:
        seconds: time inside the model.
        passes: forward passes.
        tokens: tokens computed.
        recomputed: of those, tokens that had been computed before: dropped for lack of memory, not kept (the inner
            steps of rollouts), or read again for an output that was not needed then.
    """

    seconds: float = 0.0
    passes: int = 0
    tokens: int = 0
    recomputed: int = 0


class TreeModel:
    """Runs a decoder over nodes of trees, from cached keys and values.

    Args:
        model: a causal language model or a token classifier; it is set to tree attention and evaluation mode.
        memory_bytes: bound of the cache.

    Raises:
        GradatimError: if the model's attention cannot be replaced.
    """

    def __init__(self, model: PreTrainedModel, memory_bytes: int) -> None:
        self.model = model
        self.store = KeyValueStore(memory_bytes)
        self.statistics = ModelStatistics()
        self._read: weakref.WeakKeyDictionary[Tree, dict[str, dict[int, int]]] = weakref.WeakKeyDictionary()
        self._computed: weakref.WeakKeyDictionary[Tree, dict[int, int]] = weakref.WeakKeyDictionary()
        self._asides: weakref.WeakKeyDictionary[Tree, dict[tuple[int, tuple[int, ...]], int]] = (
            weakref.WeakKeyDictionary()
        )
        self._decoder = decoder_of(model)
        self.activate()

    def activate(self) -> None:
        """Set the model to tree attention and evaluation mode."""
        self.model.eval()
        replace_attention(self.model)

    def refresh(self) -> None:
        """Forget all cached keys and values and set the model up again, after its weights were trained."""
        self.store.clear()
        self._computed.clear()
        self.activate()

    def charge(self, node: Node, account: Account, *, behind: bool = True, known_to: Account | None = None) -> bool:
        """Charge an account for the tokens of the node's path that this model reads for it for the first time.

        Without ``behind``, the node is read to the end of its step only, not what the environment wrote behind it. What
        another account paid for, that of ``known_to``, costs nothing again.
        Returns whether the budget could pay; if not, nothing is charged.
        """
        read = self._known(node.tree, account)
        other = {} if known_to is None else self._known(node.tree, known_to)
        ends = {each: len(each.step.tokens_with_observation) for each in node.path()}
        if not behind:
            ends[node] = len(node.step.tokens)
        known = {each.id: max(read.get(each.id, 0), other.get(each.id, 0)) for each in ends}
        more = {each.id: end for each, end in ends.items() if end > known[each.id]}
        if not node.tree.budget.take(account, read=sum(end - known[id] for id, end in more.items())):
            return False
        read.update(more)
        return True

    def _known(self, tree: Tree, account: Account) -> dict[int, int]:
        """How many tokens of each node (by id) were paid for by an account."""
        return self._read.setdefault(tree, {}).setdefault(account.name, {})

    def mark_written(self, node: Node, keys_values: Tensor | None, account: Account) -> None:
        """Note that the model wrote the node's step itself, so that the account that paid for it never reads it.

        ``keys_values`` (layers, 2, key-value heads, tokens, head size) of its tokens, or all but the last, are cached.
        """
        self._known(node.tree, account)[node.id] = len(node.step.tokens)
        self._computed.setdefault(node.tree, {})[node.id] = len(node.step.tokens) - 1
        if keys_values is not None:
            self.store.put(node, NodeState(keys_values, keys_values.new_empty(0, 0)))

    def aside(self, node: Node, tokens: Sequence[int]) -> Node:
        """A node with these tokens below ``node`` that is no part of the tree. It is read and paid for like any other,
        once for each account, and its own states are not cached."""
        known = self._asides.setdefault(node.tree, {})
        number = known.setdefault((node.id, tuple(tokens)), -1 - len(known))  # no node of a tree has one below 0
        return Node(node.tree, number, node, Step(tuple(tokens), ""), key=0)

    def compute(self, nodes: Sequence[Node]) -> list[list[NodeState]]:
        """Compute what is missing of the nodes' paths, each token once however many paths share it, and cache it.

        Returns the states of each node's whole path, in order, whatever the cache had to drop meanwhile. The last one
        has the hidden state of the node's last token.
        """
        ends = [(node, len(node.step.tokens_with_observation)) for node in nodes]
        states, *_ = self._row({node: range(end - 1, end) for node, end in ends}, {}, keep=True)
        return [[states[each] for each in node.path() if each in states] for node in nodes]

    def read(
        self, wanted: Mapping[Node, range], watched: Mapping[Node, int], *, keep: bool = True
    ) -> tuple[dict[Node, Tensor], dict[Node, Tensor]]:
        """The last hidden states at some tokens of nodes; what is missing of their paths is computed, each token once.

        Args:
            wanted: for each node a range of its tokens, those of its step and then those of its observation. Of nodes
                below which nothing is read, nothing is computed behind it.
            watched: for some of these nodes one of these tokens, of which attention is asked for. Weights are not kept,
                so such a token is computed again where it is cached.
            keep: whether what is computed is cached.

        Returns:
            For each node its hidden states, (tokens, hidden size); and for each watched one how much its token attends
            to those of its path, itself included: (tokens of the path to there,) in float32, the mean over the heads of
            the last layer.

        Raises:
            GradatimError: if attention is asked for and the model's last layer does not attend.
        """
        return self._row(wanted, watched, keep)[1:]

    def _row(
        self, wanted: Mapping[Node, range], watched: Mapping[Node, int], keep: bool
    ) -> tuple[dict[Node, NodeState], dict[Node, Tensor], dict[Node, Tensor]]:
        """The states of all nodes on the paths of ``wanted`` (where they are kept), and what :meth:`read` returns."""
        pieces = self._lay_out(wanted, watched)
        new = sum(len(piece.missing) for piece in pieces)
        written, computed, weights = self._compute(pieces, keep, watched) if new else (None, None, {})
        states: dict[Node, NodeState] = {}
        hidden: dict[Node, Tensor] = {}
        done = 0
        for piece in pieces:
            node, state = piece.node, piece.state
            known = None if state is None else state.hidden
            if piece.missing:
                assert computed is not None
                part = slice(done, done + len(piece.missing))
                done = part.stop
                known = _joined(known, computed[part], piece.known == (0 if state is None else state.tokens))
                self._count(piece)
                if written is not None:
                    state = NodeState(_with(state, piece.known, written[:, :, :, part]), known.clone())
            if state is not None:
                states[node] = state
            if node in wanted:
                assert known is not None, "whatever is wanted is in the row"
                first = len(piece.tokens) - len(known)
                hidden[node] = known[wanted[node].start - first : wanted[node].stop - first]
        if keep:
            for piece in reversed(pieces):  # so that what most paths share, the root, was used last
                if piece.missing and not is_aside(piece.node):
                    self.store.put(piece.node, states[piece.node])
        return states, hidden, weights

    def _lay_out(self, wanted: Mapping[Node, range], watched: Mapping[Node, int]) -> list[Piece]:
        """The nodes of a row that holds all that is wanted, in depth-first order."""
        nodes = depth_first(wanted)
        inner = {node.parent for node in nodes}
        states = {node: self.store.get(node) for node in reversed(nodes)}
        pieces: dict[Node, Piece] = {}
        place = 0
        for node in nodes:
            tokens = list(node.step.tokens_with_observation)
            state, part = states[node], wanted.get(node, range(0))
            known = 0 if state is None else state.tokens
            if node not in inner:
                tokens = tokens[: max(part.stop, known)]
            if state is not None and part and (node in watched or part.start < known - len(state.hidden)):
                known = part.start  # its hidden states were not kept, or nobody kept its weights
            depth = 0
            if node.parent is not None:
                above = pieces[node.parent]
                depth = above.depth + len(above.tokens)
            pieces[node] = Piece(node, tokens, known, state, place, place + len(tokens), depth)
            place += len(tokens)
        for node in reversed(nodes):
            if node.parent is not None:
                pieces[node.parent].stop = max(pieces[node.parent].stop, pieces[node].stop)
        return list(pieces.values())

    def _compute(
        self, pieces: Sequence[Piece], keep: bool, watched: Mapping[Node, int]
    ) -> tuple[Tensor | None, Tensor, dict[Node, Tensor]]:
        """Compute the missing tokens of a row in one forward pass: their keys and values (layers, 2, heads, new, size),
        if they are kept, their hidden states (new, hidden size), and the attention of one token of each watched node,
        given by its index."""
        device = self.device
        input_ids = torch.tensor([token for piece in pieces for token in piece.missing], device=device)
        lengths = torch.tensor([len(piece.tokens) for piece in pieces])
        shift = torch.repeat_interleave(torch.tensor([piece.depth - piece.start for piece in pieces]), lengths)
        row = TreeRow(
            positions=(torch.arange(len(shift)) + shift).to(device),
            visible_until=torch.repeat_interleave(torch.tensor([piece.stop for piece in pieces]), lengths).to(device),
        )
        new = [place for piece in pieces for place in range(piece.start + piece.known, piece.start + len(piece.tokens))]
        queries = torch.tensor(new, device=device)
        last = int(self.model.config.get_text_config().num_hidden_layers) - 1
        watch = watch_over(pieces, new, watched, last, device) if watched else None
        plan = RowPlan(row, queries, blocks(pieces, new, device), keep, watch)
        positions = row.positions[queries][None]
        ids = input_ids[None]
        options: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
        with self._timed(), torch.inference_mode(), attending(plan, positions):
            hidden = self._decoder(input_ids=ids, position_ids=positions, **options).last_hidden_state[0]
        self.statistics.passes += 1
        weights = {} if watch is None else on_paths(pieces, watch, watched)
        return _stacked(plan.written) if keep else None, hidden.to(device), weights

    def _count(self, piece: Piece) -> None:
        """Count what was computed of a node, and of that what had been computed before."""
        computed = self._computed.setdefault(piece.node.tree, {})
        self.statistics.tokens += len(piece.missing)
        before = computed.get(piece.node.id, 0)
        self.statistics.recomputed += max(0, min(before, len(piece.tokens)) - piece.known)
        computed[piece.node.id] = max(before, len(piece.tokens))

    def outputs(self, hidden: Tensor) -> Tensor:
        """The model's outputs at tokens with these last hidden states: (n, hidden size) to (n, outputs), in float32.

        Those are (vocabulary) logits of the next token, or the (labels) scores of a token classifier.
        """
        with self._timed(), torch.no_grad():
            return outputs_of(self.model, hidden).float()

    def log_probabilities(self, hidden: Tensor, after: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """The log-probability of each token, (tokens,) on the CPU, where ``hidden[after[i]]`` is the last hidden state
        before ``tokens[i]``; ``hidden`` is (n, hidden size). Only so many logits are in memory at once."""
        chosen = torch.tensor(tokens, device=hidden.device)
        result = torch.empty(len(tokens), device=hidden.device)
        for logits, mine, row in self._outputs_after(hidden, after):
            result[mine] = logits[row, chosen[mine]] - logits.logsumexp(dim=-1)[row]
        return result.cpu()

    def measures(self, hidden: Tensor, after: Sequence[int], measures: Sequence[Measure]) -> Tensor:
        """What measures make of the distributions behind the last hidden states ``hidden[after[i]]``: (measures,
        len(after)) on the CPU; ``hidden`` is (n, hidden size). Only so many distributions are in memory at once."""
        result = torch.empty((len(measures), len(after)), device=hidden.device)
        for logits, mine, row in self._outputs_after(hidden, after):
            distributions = logits.log_softmax(dim=-1)
            for place, measure in enumerate(measures):
                result[place, mine] = measure(distributions)[row]
        return result.cpu()

    def _outputs_after(self, hidden: Tensor, after: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The outputs behind ``hidden[after[i]]``, each computed once, in parts: outputs (m, outputs), the places in
        ``after`` that they are for, and which of them are for each place."""
        needed, row = (torch.from_numpy(each).to(hidden.device) for each in np.unique(after, return_inverse=True))
        size = self.outputs_at_once
        for start in range(0, len(needed), size):
            mine = ((row >= start) & (row < start + size)).nonzero()[:, 0]
            yield self.outputs(hidden[needed[start : start + size]]), mine, row[mine] - start

    @property
    def outputs_at_once(self) -> int:
        """Of how many tokens outputs take no more memory than they should."""
        return max(1, _LOGITS // int(self.model.config.get_text_config().vocab_size))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.statistics.seconds += time.perf_counter() - started

    def forward(self, plan: AttentionPlan, input_ids: Tensor, positions: Tensor) -> Tensor:
        """One forward pass under ``plan``: the outputs at all tokens, (rows, tokens, outputs) in float32."""
        # The mask shows everything; without one, transformers would take what follows padding for another sequence.
        options: dict[str, Any] = {"attention_mask": torch.ones_like(input_ids), "use_cache": False}
        with self._timed(), torch.inference_mode(), attending(plan, positions):
            logits: Tensor = self.model(input_ids=input_ids, position_ids=positions, **options).logits.float()
        self.statistics.passes += 1
        return logits

    @property
    def device(self) -> torch.device:
        """Where inputs go and cached keys and values lie; of a spread model, the first accelerator that it is on."""
        return input_device(self.model)

    @property
    def parameters(self) -> int:
        """Parameters that every token passes through: all but the input embeddings (tied ones serve as output)."""
        total = self.model.num_parameters()
        embeddings = self.model.get_input_embeddings().weight.numel()
        return int(total if getattr(self.model.config, "tie_word_embeddings", False) else total - embeddings)


def is_aside(node: Node) -> bool:
    """Whether a node is no part of its tree (:meth:`TreeModel.aside`)."""
    return node.id < 0


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model's inputs go; of a model that is spread, the first accelerator that it is on."""
    places = getattr(model, "hf_device_map", None)
    if places is None:
        device: torch.device = model.device
        return device
    accelerators = [place for place in places.values() if place not in ("cpu", "disk")]
    return torch.device(accelerators[0] if accelerators else "cpu")


def _stacked(written: dict[int, Tensor]) -> Tensor:
    """Keys and values of all layers, (layers, 2, heads, tokens, size), each filled up with zeros to the largest.

    Raises:
        GradatimError: if layers are missing.
    """
    if not written:
        raise GradatimError("its layers do not call the attention that transformers lets be replaced")
    if set(written) != set(range(len(written))):
        missing = min(set(range(max(written))) - set(written))
        raise GradatimError(f"its layer {missing} does not attend to what is cached")
    layers = [layer for _, layer in sorted(written.items())]
    heads, size = (max(layer.shape[place] for layer in layers) for place in (1, 3))
    if any(layer.shape != layers[0].shape for layer in layers):  # padding by nothing would copy all of it, too
        layers = [nn.functional.pad(each, (0, size - each.shape[3], 0, 0, 0, heads - each.shape[1])) for each in layers]
    return torch.stack(layers)


def _joined(before: Tensor | None, after: Tensor, follows: bool) -> Tensor:
    """The hidden states of a node's last tokens: what was computed now, behind what was known where it ``follows``."""
    return torch.cat((before, after)) if before is not None and len(before) and follows else after


def _with(state: NodeState | None, known: int, written: Tensor) -> Tensor:
    """The keys and values of a node: the first ``known`` ones of its state, and what was written."""
    return written.clone() if state is None else torch.cat((state.keys_values[:, :, :, :known], written), dim=3)
