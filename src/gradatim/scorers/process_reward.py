"""A process reward model as a scorer: a decoder that is read at the end of each step."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gradatim.budget import SCORER, Account
from gradatim.engine.loading import Quantization
from gradatim.engine.passes import next_pass
from gradatim.engine.path_length import longest_path
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.too_long import TooLong
from gradatim.engine.tree_model import ModelStatistics
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart
from gradatim.scorers.layouts import Layout, OwnLayout, label_probability
from gradatim.scorers.loading import load_scoring_model
from gradatim.text.transcript import Transcript, is_in_tokens_of
from gradatim.tree import Node, Tree


@part
class ProcessRewardPart(ScorerPart):
    """A process reward model: the probability that a step is right (Lightman et al., 2023, arXiv:2305.20050)."""

    model: ModelName = "scorer"
    """The reward model."""
    layout: Literal["auto", "own", "step-token", "step-tag", "dialogue", "separator", "value-head"] = "auto"
    """How it reads a solution; `auto` tells it from the model."""

    def open(self, context: Context) -> ProcessRewardScorer:
        scorer: ProcessRewardScorer = context.reward_model(self.model, self.name, self.layout)
        return scorer


class ProcessRewardScorer:
    """Scores a step by the probability that it is right (Lightman et al., *Let's Verify Step by Step*, 2023).

    A step is scored from the cached state of its parent, so each token of a tree is read once, and all steps that wait
    for a score are read in one pass. A model that was trained here reads the tree's own tokens where they are its
    tokenizer's; any other model, and any tree of text, is read through the model's layout.

    Args:
        model: a token classifier with one label (the logit of "right") or two (the second is "right"), or what its
            layout needs; its attention is replaced by tree attention.
        layout: how the model reads a solution; without one, it reads the tree's own tokens.
        name: the key in ``node.scores``.
        memory_bytes: bound on the cached keys and values.
        rows_per_pass: how many steps one forward pass reads at most.
        tokens_per_pass: how many tokens it takes at most, with what the steps attend to and padding; one longer path
            has a pass of its own.
        account: what trees are charged to.

    Raises:
        GradatimError: if a classifier has neither one label nor two, or the model's attention cannot be replaced or
            computes something else over trees than over single paths (see :mod:`gradatim.engine.self_check`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        layout: Layout | None = None,
        name: str = "process_reward",
        memory_bytes: int = 2 << 30,
        rows_per_pass: int = 256,
        tokens_per_pass: int = 1 << 16,
        account: Account = SCORER,
    ) -> None:
        is_classifier = model.get_output_embeddings() is None
        if is_classifier and model.config.num_labels not in (1, 2):
            raise GradatimError(
                f"a process reward model has one label or two, but this one has {model.config.num_labels}; "
                "name a model that was trained to judge steps"
            )
        self.name = name
        self.rows_per_pass = rows_per_pass
        self.tokens_per_pass = tokens_per_pass
        self.layout = layout
        self.tree_model = checked_tree_model(model, memory_bytes)
        self.account = account.of_size(self.tree_model.parameters)
        self._transcript = None if layout is None else Transcript(layout.path_tokens)
        self._positions = longest_path(model.config)
        self.too_long = TooLong("the reward model reads", self._positions, "stays unscored")
        self._reads_directly: weakref.WeakKeyDictionary[Tree, bool] = weakref.WeakKeyDictionary()  # unless it is text
        self._waiting: list[tuple[Node, Node, asyncio.Future[None]]] = []
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        layout: str = "auto",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        quantization: Quantization | None = None,
        **options: Any,
    ) -> ProcessRewardScorer:
        """Load the model from a hub id, a local folder or ``shipped:NAME``; ``options`` as for the class.

        Args:
            name_or_path: the model.
            layout: a name of :data:`gradatim.scorers.loading.LAYOUTS`; ``"auto"`` tells it from the model.
            device, dtype, device_map, quantization: see :func:`gradatim.engine.loading.placed`.

        Raises:
            GradatimError: if it cannot be loaded or its layout cannot be told; says why.
        """
        model, made = load_scoring_model(
            name_or_path, layout, dtype=dtype, device=device, device_map=device_map, quantization=quantization
        )
        return cls(model, layout=made, **options)

    @property
    def statistics(self) -> ModelStatistics:
        return self.tree_model.statistics

    def release(self, tree: Tree) -> None:
        """Drop the cached keys and values of a tree that is done."""
        self.tree_model.store.release(tree)
        for counterpart in () if self._transcript is None else self._transcript.forget(tree):
            self.tree_model.store.release(counterpart)

    def refresh(self) -> None:
        """Forget all cached keys and values and set the model up again, after its weights were trained."""
        self.tree_model.refresh()

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write the probability that each step is right; see :class:`gradatim.scorers.base.Scorer`."""
        loop = asyncio.get_running_loop()
        futures: dict[Node, asyncio.Future[None]] = {}
        for node in nodes:
            if self.name in node.scores or node in futures:
                continue
            read = self._as_read(node)
            length = len(read.tokens)
            if length > self._positions:
                self.too_long.note(node, length)
            elif self.tree_model.charge(read, self.account):
                futures[node] = loop.create_future()
                self._waiting.append((node, read, futures[node]))
        if self._waiting and (self._pump is None or self._pump.done()):
            self._pump = loop.create_task(self._run())
        await asyncio.gather(*futures.values())

    def _as_read(self, node: Node) -> Node:
        """The node in the tokens that the model reads.

        Raises:
            GradatimError: if the tree has no tokens and the scorer no layout.
        """
        tree = node.tree
        if tree not in self._reads_directly:
            self._reads_directly[tree] = self._knows_tokens_of(tree)
        directly = self._reads_directly[tree] and not tree.has_text_steps
        read = node if self._transcript is None or directly else self._transcript.counterpart(node)
        if not read.tokens or (self._transcript is None and tree.has_text_steps):
            raise GradatimError(
                f"the steps of problem {tree.problem.id!r} are text without tokens; load the reward model with "
                "ProcessRewardScorer.from_pretrained, which knows how to write them"
            )
        return read

    def _knows_tokens_of(self, tree: Tree) -> bool:
        """Whether a tree's own tokens are what the model would read."""
        if self.layout is None:
            return True
        if not isinstance(self.layout, OwnLayout) or not tree.root.step.tokens:
            return False
        prompt = self.layout.path_tokens(tree.problem, ())
        return is_in_tokens_of(tree, self.layout.tokenizer, prompt)

    async def _run(self) -> None:
        """Read whatever waits, a pass at a time; searches take their scores between two passes."""
        while self._waiting:
            count = next_pass(
                self._waiting,
                lambda waiting: len(waiting[1].tokens),
                rows=self.rows_per_pass,
                tokens=self.tokens_per_pass,
            )
            batch = self._waiting[:count]
            del self._waiting[:count]
            try:
                self._score_batch(batch)
            except Exception as error:
                for _, _, future in [*batch, *self._waiting]:
                    if not future.done():
                        future.set_exception(error)
                self._waiting.clear()
                return
            for _, _, future in batch:
                if not future.done():
                    future.set_result(None)
            await asyncio.sleep(0)
        self.tree_model.free()

    def _score_batch(self, batch: Sequence[tuple[Node, Node, asyncio.Future[None]]]) -> None:
        paths = self.tree_model.compute([read for _, read, _ in batch])
        outputs = torch.stack([_output(path[-1].output) for path in paths])
        probability = label_probability if self.layout is None else self.layout.probability
        scores = probability(outputs)
        if not bool(scores.isfinite().all()):
            raise GradatimError(
                f"the reward model {self.name!r} gave a score that is not a number; it has diverged, or its number "
                "format is too narrow: try dtype='float32'",
                options=("dtype='float32'",),
            )
        for (node, _, _), score in zip(batch, scores.tolist(), strict=True):
            node.scores[self.name] = score


def _output(output: Tensor | None) -> Tensor:
    assert output is not None, "compute() gives the last node of every path its output"
    return output
