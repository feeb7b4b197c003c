"""A process reward model as a scorer: a token-level head on a decoder, read at the end of each step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification, PreTrainedModel

from gradatim.budget import Spending
from gradatim.errors import GradatimError
from gradatim.policies.loading import load_model
from gradatim.policies.tree_model import ModelStatistics, TreeModel
from gradatim.tree import Node, Tree


class ProcessRewardScorer:
    """Scores a step by the probability that it is right (Lightman et al., *Let's Verify Step by Step*, 2023).

    The model is a token classifier with one label (the logit of "right") or two (the second is "right"); the score
    is read at the step's last token. A step is scored from the cached state of its parent, so each token of a tree is
    read once, and all steps that wait for a score are read in one pass. The model reads the tree's own tokens: it
    must have the policy's tokenizer.

    Args:
        model: the token classifier; its attention is replaced by tree attention.
        name: the key in ``node.scores``.
        memory_bytes: bound on the cached keys and values.
        rows_per_pass: how many steps one forward pass reads at most.

    Raises:
        GradatimError: if the model has neither one label nor two.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        name: str = "process_reward",
        memory_bytes: int = 2 << 30,
        rows_per_pass: int = 256,
    ) -> None:
        if model.config.num_labels not in (1, 2):
            raise GradatimError(
                f"a process reward model has one label or two, but this one has {model.config.num_labels}; "
                "name a model that was trained to judge steps"
            )
        self.name = name
        self.rows_per_pass = rows_per_pass
        self.tree_model = TreeModel(model, Spending.SCORER_PREFILL, memory_bytes)
        self._waiting: list[tuple[Node, asyncio.Future[None]]] = []
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> ProcessRewardScorer:
        """Load the model from a hub id or a local folder; ``options`` as for the class.

        Raises:
            GradatimError: if it cannot be loaded; says why.
        """
        return cls(load_model(AutoModelForTokenClassification, name_or_path, dtype=dtype).to(device), **options)

    @property
    def statistics(self) -> ModelStatistics:
        return self.tree_model.statistics

    def release(self, tree: Tree) -> None:
        """Drop the cached keys and values of a tree that is done."""
        self.tree_model.store.release(tree)

    def refresh(self) -> None:
        """Forget all cached keys and values and set the model up again, after its weights were trained."""
        self.tree_model.refresh()

    async def score(self, nodes: Sequence[Node]) -> None:
        """Write the probability that each step is right; see :class:`gradatim.scorers.base.Scorer`."""
        loop = asyncio.get_running_loop()
        futures: dict[Node, asyncio.Future[None]] = {}
        for node in nodes:
            if self.name not in node.scores and node not in futures and self.tree_model.charge(node):
                futures[node] = loop.create_future()
        self._waiting.extend(futures.items())
        if self._waiting and (self._pump is None or self._pump.done()):
            self._pump = loop.create_task(self._run())
        await asyncio.gather(*futures.values())

    async def _run(self) -> None:
        """Read whatever waits, a pass at a time; searches take their scores between two passes."""
        while self._waiting:
            batch = self._waiting[: self.rows_per_pass]
            del self._waiting[: self.rows_per_pass]
            try:
                self._score_batch([node for node, _ in batch])
            except Exception as error:
                for _, future in [*batch, *self._waiting]:
                    if not future.done():
                        future.set_exception(error)
                self._waiting.clear()
                return
            for _, future in batch:
                if not future.done():
                    future.set_result(None)
            await asyncio.sleep(0)
        self.tree_model.free()

    def _score_batch(self, nodes: Sequence[Node]) -> None:
        outputs = torch.stack([_output(path[-1].output) for path in self.tree_model.compute(nodes)])
        for node, probability in zip(nodes, step_probabilities(outputs).tolist(), strict=True):
            node.scores[self.name] = probability


def step_probabilities(logits: Tensor) -> Tensor:
    """The probability of "right" from logits of one label or two: (..., labels) to (...)."""
    if logits.shape[-1] == 1:
        return logits.squeeze(-1).sigmoid()
    return logits.softmax(dim=-1)[..., 1]


def _output(output: Tensor | None) -> Tensor:
    assert output is not None, "compute() gives the last node of every path its output"
    return output
