"""A transformers model that reads trees: each token of a path once, whatever is asked of the tree and in what order."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gradatim.budget import Spending
from gradatim.errors import GradatimError
from gradatim.policies.key_value_store import KeyValueStore, NodeState
from gradatim.policies.tree_attention import TREE_ATTENTION, AttentionPlan, SegmentPlan, attending
from gradatim.tree import Node, Tree


@dataclass
class ModelStatistics:
    """What a model did so far.

    Attributes:
        seconds: time inside the model.
        passes: forward passes.
        tokens: tokens computed.
        recomputed: of those, tokens that had been computed before and were dropped for lack of memory.
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
        spending: what the tokens that it reads are charged to.
        memory_bytes: bound of the cache.

    Raises:
        GradatimError: if the model's attention cannot be replaced.
    """

    def __init__(self, model: PreTrainedModel, spending: Spending, memory_bytes: int) -> None:
        self.model = model
        self.spending = spending
        self.store = KeyValueStore(memory_bytes)
        self.statistics = ModelStatistics()
        self._read: weakref.WeakKeyDictionary[Tree, dict[int, int]] = weakref.WeakKeyDictionary()
        self._computed: weakref.WeakKeyDictionary[Tree, set[int]] = weakref.WeakKeyDictionary()
        self.activate()

    def activate(self) -> None:
        """Set the model to tree attention and evaluation mode; needed again after it was trained."""
        self.model.eval()
        try:
            self.model.set_attn_implementation(TREE_ATTENTION)
        except (ValueError, AttributeError, ImportError) as error:
            raise GradatimError(
                f"{type(self.model).__name__} does not let its attention be replaced ({error}); "
                "use a decoder that supports transformers' attention interface"
            ) from error

    def charge(self, node: Node) -> bool:
        """Charge the tree's budget for the tokens of the node's path that this model reads for the first time.

        Returns whether the budget could pay; if not, nothing is charged.
        """
        read = self._read.setdefault(node.tree, {})
        unread = [(each, len(each.step.tokens) + len(each.step.observation)) for each in node.path()]
        tokens = sum(length - read.get(each.id, 0) for each, length in unread)
        if not node.tree.budget.take(self.spending, tokens):
            return False
        read.update((each.id, length) for each, length in unread)
        return True

    def mark_written(self, node: Node, keys_values: Tensor | None) -> None:
        """Note that the model wrote the node's step itself (charged as generated), so it never counts as read.

        ``keys_values`` (layers, 2, key-value heads, tokens, head size) of its tokens but the last are cached.
        """
        self._read.setdefault(node.tree, {})[node.id] = len(node.step.tokens)
        if keys_values is not None:
            self._computed.setdefault(node.tree, set()).add(node.id)
            self.store.put(node, NodeState(keys_values, None))

    def segment(self, node: Node) -> Segment:
        """What is cached of the node's path and what is missing. At least its last token is computed, unless its
        output is cached too (then nothing is missing)."""
        path = node.path()
        states: list[NodeState] = []
        missing: list[tuple[Node, list[int]]] = []
        for each in path:
            tokens = [*each.step.tokens, *each.step.observation]
            state = self.store.get(each)
            if missing or state is None:
                missing.append((each, tokens))
            else:
                states.append(state)
                if state.tokens < len(tokens):
                    missing.append((each, tokens[state.tokens :]))
        if not missing and states[-1].output is None:
            states.pop()
            missing.append((node, [*node.step.tokens, *node.step.observation]))
        return Segment(node, states, missing)

    def compute(self, segments: Sequence[Segment]) -> list[list[NodeState]]:
        """Compute what is missing of the segments in one forward pass, and cache it.

        Returns the states of each segment's whole path, in order, whatever the cache had to drop meanwhile. The last
        one's ``output`` is the model's output at the node's last token: (vocabulary,) logits or (labels,) scores.
        """
        work = [segment for segment in segments if segment.missing]
        computed = iter(self._compute(work) if work else ())
        return [next(computed) if segment.missing else segment.cached for segment in segments]

    def _compute(self, segments: Sequence[Segment]) -> list[list[NodeState]]:
        device = self.model.device
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
        written = torch.stack([plan.written[layer] for layer in range(len(plan.written))])
        self.statistics.tokens += sum(lengths)
        return [
            self._keep(segment, written[:, :, row, :, width - lengths[row] :], outputs[row].clone())
            for row, segment in enumerate(segments)
        ]

    def _keep(self, segment: Segment, written: Tensor, output: Tensor) -> list[NodeState]:
        """Cut ``written`` (layers, 2, heads, tokens, size) into the states of the segment's nodes; returns all states
        of its path."""
        states = list(segment.cached)
        computed = self._computed.setdefault(segment.node.tree, set())
        start = 0
        for node, tokens in segment.missing:
            piece = written[:, :, :, start : start + len(tokens)].clone()
            start += len(tokens)
            if len(tokens) < len(node.step.tokens) + len(node.step.observation):
                # The node was cached but for its last tokens, which belong to the same state.
                piece = torch.cat((states.pop().keys_values, piece), dim=3)
            elif node.id in computed:
                self.statistics.recomputed += len(tokens)
            computed.add(node.id)
            states.append(NodeState(piece, output if node is segment.node else None))
            self.store.put(node, states[-1])
        return states

    def gather(self, rows: Sequence[Sequence[NodeState]]) -> Tensor | None:
        """Lay cached states side by side: (layers, 2, rows, heads, longest, size), zero-padded on the right.

        ``None`` where no row has any state.
        """
        example = next((state.keys_values for states in rows for state in states), None)
        if example is None:
            return None
        layers, two, heads, _, size = example.shape
        longest = max(sum(state.tokens for state in states) for states in rows)
        result = example.new_zeros((layers, two, len(rows), heads, longest, size))
        for row, states in enumerate(rows):
            start = 0
            for state in states:
                result[:, :, row, :, start : start + state.tokens] = state.keys_values
                start += state.tokens
        return result

    def forward(self, plan: AttentionPlan, input_ids: Tensor, positions: Tensor, *, last_only: bool) -> Tensor:
        """One forward pass under ``plan``: (rows, tokens, outputs) in float32, or only the last token's."""
        options = {"logits_to_keep": 1} if last_only and self._keeps_last else {}
        started = time.perf_counter()
        with torch.inference_mode(), attending(plan):
            output = self.model(input_ids=input_ids, position_ids=positions, use_cache=False, **options)
        logits: Tensor = output.logits.float()
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.passes += 1
        return logits

    @property
    def _keeps_last(self) -> bool:
        return self.model.get_output_embeddings() is not None

    @property
    def parameters(self) -> int:
        """Parameters that every token passes through: all but the input embeddings (tied ones serve as output)."""
        total = self.model.num_parameters()
        embeddings = self.model.get_input_embeddings().weight.numel()
        return int(total if getattr(self.model.config, "tie_word_embeddings", False) else total - embeddings)
