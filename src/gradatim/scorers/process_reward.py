"""A process reward model as a scorer: a decoder that is read at the end of each step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from gradatim.budget import SCORER, Account
from gradatim.engine.quantization import Quantization
from gradatim.engine.reader import NEXT_TOKEN, SCORE, Reader
from gradatim.engine.too_long import TooLong
from gradatim.engine.tree_model import ModelStatistics, TreeModel
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.scorers.layouts import Layout, OwnLayout, label_probability
from gradatim.scorers.loading import load_scoring_model
from gradatim.tree import Node, Tree


@part
class ProcessRewardPart(ScorerPart):
    """A process reward model: the probability that a step is right (Lightman et al., 2023, arXiv:2305.20050).

    An outcome reward model is the same with other labels (the construction `solution_labels`): it is meant for the last
    step of a solution, where searches read it with `aggregate: last`; sampling has nothing else scored.
    """

    model: ModelName = "scorer"
    """The reward model."""
    layout: Literal["auto", "own", "step-token", "step-tag", "dialogue", "separator", "value-head"] = "auto"
    """How it reads a solution; `auto` tells it from the model."""

    def open(self, context: Context) -> ProcessRewardScorer:
        return context.reward_model(self.model, self.name, self.layout)


class ProcessRewardScorer(StepScorer):
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
        tokens_per_pass: see :class:`gradatim.engine.reader.Reader`.
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
        tokens_per_pass: int | None = None,
        account: Account = SCORER,
    ) -> None:
        is_classifier = model.get_output_embeddings() is None
        if is_classifier and model.config.num_labels not in (1, 2):
            raise GradatimError(
                f"a process reward model has one label or two, but this one has {model.config.num_labels}; "
                "name a model that was trained to judge steps"
            )
        super().__init__(name)
        self.layout = layout
        self.reader = Reader(
            model,
            layout.tokenizer if isinstance(layout, OwnLayout) else None,
            path_tokens=None if layout is None else layout.path_tokens,
            account=account,
            memory_bytes=memory_bytes,
            tokens_per_pass=tokens_per_pass,
            judgement=label_probability if layout is None else layout.probability,
            called="the reward model",
            consequence="stays unscored",
        )
        self._head = SCORE if is_classifier else NEXT_TOKEN

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
    def model(self) -> PreTrainedModel:
        return self.reader.model

    @property
    def tree_model(self) -> TreeModel:
        return self.reader.tree_model

    @property
    def statistics(self) -> ModelStatistics:
        return self.reader.statistics

    @property
    def too_long(self) -> TooLong:
        return self.reader.too_long

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self.reader.release(tree)

    def refresh(self) -> None:
        """Forget all that is cached and set the model up again, after its weights were trained."""
        self.reader.refresh()

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """The probability that each step is right."""
        readings = await self.reader.read(nodes, heads=(self._head,))
        read = [each.heads[self._head] for each in readings if each is not None]
        scores = iter(torch.stack(read).tolist() if read else [])
        return [None if each is None else next(scores) for each in readings]
