"""One training of a run: which model learns by what from which terms, and how what it learned is saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradatim.engine.lending import cast_parameters
from gradatim.engine.loading import load_tokenizer
from gradatim.evaluation.steps import Thresholds
from gradatim.models import resolve_model
from gradatim.part import name_of
from gradatim.recipes.recipe import POLICY, Learn
from gradatim.run.context import Run
from gradatim.run.models import make_sampling
from gradatim.run.stages import FINE_TUNING, Stage
from gradatim.supervision.chosen import Choice, chosen_terms
from gradatim.supervision.terms import Term
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import in_tokens_of
from gradatim.training.model_card import write_model_card
from gradatim.training.saving import save_model, save_process_reward_model, stored_dtype
from gradatim.training.text_terms import terms_in_tokens_of
from gradatim.tree import Tree


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a run.

    Attributes:
        run: the run.
        stage: its stage.
        learn: its entry of the recipe.
        number: of its round; 0 before the first, and for the rounds of an online training.
        path: the model as it is before.
        tokenizer: of the model.
        chat: how the model is put problems.
    """

    run: Run
    stage: Stage
    learn: Learn
    number: int
    path: str
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat | None

    @classmethod
    def of(cls, run: Run, stage: Stage, learn: Learn, number: int = 0) -> Training:
        """The training that ``learn`` is in a stage."""
        path = run.path_of(learn.model, (stage.uses or {})[learn.model])
        tokenizer, chat = load_tokenizer(resolve_model(path)), run.recipe.policy.chat
        return cls(run, stage, learn, number, path, tokenizer, chat if tokenizer.chat_template else None)

    @property
    def target(self) -> Path:
        """Where the trained model goes."""
        return self.run.trained_folder(self.stage, self.learn.model)

    @property
    def judges(self) -> bool:
        """Whether the model is one that judges steps, and no policy."""
        return "score" in self.learn.objective.heads

    @property
    def dtype(self) -> torch.dtype | None:
        """The type that the trained weights are saved in; ``None`` for that of the model they came from."""
        return None if self.learn.save_dtype == "auto" else getattr(torch, self.learn.save_dtype)

    @property
    def title(self) -> str:
        if self.stage.name == FINE_TUNING:
            return "Fine-tuning the policy"
        name = "policy" if self.learn.model == POLICY else self.learn.model
        return f"Training the {name} by {name_of(self.learn.objective)}, round {self.number}"

    @property
    def name(self) -> str:
        """What the training is called where it is reported to."""
        return f"{self.run.folder.path.resolve().name}-{self.stage.name}"

    @property
    def what(self) -> str:
        """What it learns from, in the plural."""
        return " and ".join(dict.fromkeys(part.what for part in self.learn.data)) or "worked solutions"

    @property
    def measure(self) -> tuple[str, float]:
        """What the held-out measure is called, and the sign that makes it higher where it is better."""
        return ("held-out pass@1", 1.0) if self.learn.measure == "accuracy" else ("held-out loss", -1.0)

    @property
    def reference(self) -> Literal["tree", "initial", "base"]:
        """Where reference log-probabilities come from; of trees that other models wrote, or nobody knows which, it is
        the model as it is before."""
        stored = self.run.recipe.trees.stored is not None
        if self.learn.reference == "tree" and (stored or self.learn.model != POLICY):
            return "initial"
        return self.learn.reference

    def terms(self, trees: Iterable[Tree]) -> tuple[list[Term], list[Choice]]:
        """What trees have to learn from, in the model's tokens, and a table of what was kept of it and why."""
        own = (in_tokens_of(tree, self.tokenizer, self.chat) for tree in trees)
        terms, table = chosen_terms(own, self.learn.data, self.learn.filters, self.run.task)
        return terms_in_tokens_of(terms, self.tokenizer, self.chat), table

    def save(
        self, model: PreTrainedModel, learned: str, metrics: Mapping[str, float], thresholds: Thresholds | None = None
    ) -> None:
        """Save the trained model as :attr:`target`, with its card.

        What is in memory is then what was saved, to the last bit, as in a run that was stopped here and goes on.

        Args:
            model: without adapters.
            learned: what it learned from, in words.
            metrics: what was measured of it.
            thresholds: of a model that judges steps.
        """
        run, dtype = self.run, self.dtype
        of_trees = "" if self.learn.demonstrations is not None else " of trees"

        def card(folder: Path) -> None:
            write_model_card(
                folder,
                title=self.target.name,
                kind="process-reward-model" if self.judges else "policy",
                base_model=run.recipe.policy.model if self.learn.model == POLICY else self.path,
                recipe=run.recipe.model_dump(mode="json", exclude_none=True),
                data=f"It learned from {learned}{of_trees} of the task {run.recipe.task.name}.",
                chat=self.chat,
                boundary=make_sampling(run.recipe.policy.sampling, run.task).boundary,
                metrics=dict(metrics),
                labels=2 if self.judges and model.config.num_labels == 2 else 1,
                threshold=None if thresholds is None else thresholds.accuracy,
                first_error_threshold=None if thresholds is None else thresholds.first_error,
            )

        if self.judges:
            save_process_reward_model(model, self.tokenizer, self.target, self.chat, dtype=dtype, also=card)
        else:
            save_model(model, self.tokenizer, self.target, dtype=dtype, also=card)
        cast_parameters(model, dtype or stored_dtype(model))
