"""A transformers model that reads trees: each token of a path once, whatever is asked of the tree and in what order."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradatim.budget import Account
from gradatim.engine.key_value_store import KeyValueStore, NodeState, with_room
from gradatim.engine.lending import replace_attention
from gradatim.engine.tree_attention import AttentionPlan, SegmentPlan, attending
from gradatim.errors import GradatimError
from gradatim.tree import Node, Tree


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


@dataclass(slots=True)
class Segment:
    """The part of a node's path that has to be computed, and the states of the part before it."""

    node: Node
    cached: list[NodeState]
    missing: list[tuple[Node, list[int]]]

    @property
    def prefix_length(self) -> int:
        return sum(state.tokens for state in self.cached)

    @property
    def tokens(self) -> list[int]:
        return [token for _, tokens in self.missing for token in tokens]


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
        self._gathered: Tensor | None = None
        self._computed: weakref.WeakKeyDictionary[Tree, dict[int, int]] = weakref.WeakKeyDictionary()
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

    def charge(self, node: Node, account: Account) -> bool:
        """Charge an account for the tokens of the node's path that this model reads for it for the first time.

        Returns whether the budget could pay; if not, nothing is charged.
        """
        read = self._known(node.tree, account)
        unread = [(each, len(each.step.tokens) + len(each.step.observation)) for each in node.path()]
        tokens = sum(length - read.get(each.id, 0) for each, length in unread)
        if not node.tree.budget.take(account, read=tokens):
            return False
        read.update((each.id, length) for each, length in unread)
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
            self.store.put(node, NodeState(keys_values, None))

    def compute(self, nodes: Sequence[Node]) -> list[list[NodeState]]:
        """Compute what is missing of the nodes' paths, each token once however many paths share it, and cache it.

        Returns the states of each node's whole path, in order, whatever the cache had to drop meanwhile. The last
        one's ``output`` is the model's output at the node's last token: (vocabulary,) logits or (labels,) scores.
        """
        held: dict[Node, NodeState] = {}
        rounds = [list(dict.fromkeys(nodes))]
        while rounds[-1]:
            rounds.append(_junctions([self._segment(node, held) for node in rounds[-1]]))
        for targets in reversed(rounds):
            work = [segment for segment in (self._segment(node, held) for node in targets) if segment.missing]
            if work:
                self._compute(work, held)
        return [[held[each] for each in node.path()] for node in nodes]

    def _segment(self, node: Node, held: dict[Node, NodeState]) -> Segment:
        """What is known of the node's path (from then on ``held``, whatever the cache drops) and what is missing. At
        least the last token is missing, unless its output is known too."""
        path = node.path()
        for each in reversed(path):  # so that what most paths share, the root, was used last
            state = None if each in held else self.store.get(each)
            if state is not None:
                held[each] = state
        states: list[NodeState] = []
        missing: list[tuple[Node, list[int]]] = []
        for each in path:
            tokens = [*each.step.tokens, *each.step.observation]
            state = held.get(each)
            if missing or state is None:
                missing.append((each, tokens))
                continue
            known = state.tokens
            if known == len(tokens) and each is node and state.output is None:
                known -= 1
                state = NodeState(state.keys_values[:, :, :, :known], None)
            states.append(state)
            if known < len(tokens):
                missing.append((each, tokens[known:]))
        return Segment(node, states, missing)

    def _compute(self, segments: Sequence[Segment], held: dict[Node, NodeState]) -> None:
        """Compute what is missing of the segments in one forward pass, cache it, and put it into ``held``."""
        device = self.device
        tokens = [segment.tokens for segment in segments]
        lengths = [len(row) for row in tokens]
        prefix_lengths = [segment.prefix_length for segment in segments]
        width = max(lengths)
        input_ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=device)
        starts = torch.tensor([start - (width - n) for start, n in zip(prefix_lengths, lengths, strict=True)])
        positions = (starts[:, None] + torch.arange(width)).clamp_min(0).to(device)
        plan = SegmentPlan(
            prefix=self.gather([segment.cached for segment in segments]),
            prefix_lengths=torch.tensor(prefix_lengths, device=device),
            lengths=torch.tensor(lengths, device=device),
        )
        outputs = self.forward(plan, input_ids, positions, last_only=True)[:, -1]
        written = _stacked(plan.written)
        self.statistics.tokens += sum(lengths)
        for row, segment in enumerate(segments):
            self._keep(segment, written[:, :, row, :, width - lengths[row] :], outputs[row].clone(), held)

    def _keep(self, segment: Segment, written: Tensor, output: Tensor, held: dict[Node, NodeState]) -> None:
        """Cut ``written`` (layers, 2, heads, tokens, size) into the states of the segment's nodes."""
        computed = self._computed.setdefault(segment.node.tree, {})
        start = 0
        for index, (node, tokens) in enumerate(segment.missing):
            piece = written[:, :, :, start : start + len(tokens)].clone()
            start += len(tokens)
            total = len(node.step.tokens) + len(node.step.observation)
            if index == 0 and len(tokens) < total:
                # The node was cached but for its last tokens, which belong to the same state.
                piece = torch.cat((segment.cached[-1].keys_values, piece), dim=3)
            self.statistics.recomputed += max(0, computed.get(node.id, 0) - (total - len(tokens)))
            computed[node.id] = total
            held[node] = NodeState(piece, output if node is segment.node else None)
        for node, _ in reversed(segment.missing):
            self.store.put(node, held[node])

    def gather(self, rows: Sequence[Sequence[NodeState]]) -> Tensor | None:
        """Lay cached states side by side: (layers, 2, rows, heads, longest, size), padded on the right with anything
        finite; valid until the next call.

        ``None`` where no row has any state.
        """
        example = next((state.keys_values for states in rows for state in states), None)
        if example is None:
            return None
        longest = max(sum(state.tokens for state in states) for states in rows)
        self._gathered = with_room(self._gathered, example, len(rows), longest)
        result = self._gathered[:, :, : len(rows), :, :longest]
        for row, states in enumerate(rows):
            start = 0
            for state in states:
                result[:, :, row, :, start : start + state.tokens] = state.keys_values
                start += state.tokens
        return result

    def free(self) -> None:
        """Give working memory back (not the cache), for a model that has nothing to do."""
        self._gathered = None

    def forward(self, plan: AttentionPlan, input_ids: Tensor, positions: Tensor, *, last_only: bool) -> Tensor:
        """One forward pass under ``plan``: (rows, tokens, outputs) in float32, or only the last token's."""
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._keeps_last else {}
        # The mask shows everything; without one, transformers would take what follows padding for another sequence.
        options["attention_mask"] = torch.ones_like(input_ids)
        started = time.perf_counter()
        with torch.inference_mode(), attending(plan, positions):
            output = self.model(input_ids=input_ids, position_ids=positions, use_cache=False, **options)
        logits: Tensor = output.logits.float()
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.passes += 1
        return logits

    @property
    def device(self) -> torch.device:
        """Where inputs go and cached keys and values lie; of a spread model, the first accelerator that it is on."""
        return input_device(self.model)

    @property
    def _keeps_last(self) -> bool:
        # Where layers share keys and values (Gemma 3n and 4), transformers skips what only the last token needs not.
        shares = getattr(self.model.config.get_text_config(), "num_kv_shared_layers", 0)
        return not shares and self.model.get_output_embeddings() is not None

    @property
    def parameters(self) -> int:
        """Parameters that every token passes through: all but the input embeddings (tied ones serve as output)."""
        total = self.model.num_parameters()
        embeddings = self.model.get_input_embeddings().weight.numel()
        return int(total if getattr(self.model.config, "tie_word_embeddings", False) else total - embeddings)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model's inputs go; of a model that is spread, the first accelerator that it is on."""
    places = getattr(model, "hf_device_map", None)
    if places is None:
        device: torch.device = model.device
        return device
    accelerators = [place for place in places.values() if place not in ("cpu", "disk")]
    return torch.device(accelerators[0] if accelerators else "cpu")


def _stacked(written: dict[int, Tensor]) -> Tensor:
    """Keys and values of all layers, (layers, 2, rows, heads, tokens, size), each filled up with zeros to the largest.

    Raises:
        GradatimError: if layers are missing.
    """
    if not written:
        raise GradatimError("its layers do not call the attention that transformers lets be replaced")
    if set(written) != set(range(len(written))):
        missing = min(set(range(max(written))) - set(written))
        raise GradatimError(f"its layer {missing} does not attend to what is cached")
    heads = max(layer.shape[2] for layer in written.values())
    size = max(layer.shape[4] for layer in written.values())
    return torch.stack(
        [
            nn.functional.pad(layer, (0, size - layer.shape[4], 0, 0, 0, heads - layer.shape[2]))
            for _, layer in sorted(written.items())
        ]
    )


def _junctions(segments: Sequence[Segment]) -> list[Node]:
    """For each segment, the last missing node that others miss too; computed first, it is computed once."""
    owners = Counter(node for segment in segments for node, _ in segment.missing)
    junctions: dict[Node, None] = {}
    for segment in segments:
        shared = [node for node, _ in segment.missing if owners[node] > 1]
        if shared:
            junctions[shared[-1]] = None
    return list(junctions)
