"""What the experiment runs with; the defaults are those of the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Source = Literal["synthetic", "prmbench"]


MAIN = "main setting"
"""The name of the setting of which all others change one thing."""


@dataclass(frozen=True, slots=True)
class LanguageModelSettings:
    """The tokenizer and the language model from scratch.

    Attributes:
        vocabulary: entries of the byte-pair vocabulary.
        hidden, layers, heads, feed_forward, positions: shape of the Llama; embeddings are tied.
        tokens: training tokens in all, over as many epochs as that takes.
        window: tokens of a training row, cut from the shuffled documents written one after the other.
        batch: rows of an update.
        learning_rate: peak; warm-up over the first 3 % of the updates, then cosine decay to a tenth.
        seed: of the weights and the order.
    """

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 768
    positions: int = 2048
    tokens: int = 4_000_000
    window: int = 512
    batch: int = 6
    learning_rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RewardModelSettings:
    """One reward model; the defaults are the main setting, and every other run changes one thing.

    Attributes:
        supervision: ``"process"`` learns the label of every step, ``"outcome"`` the outcome at the last step.
        sources: of the training solutions, in equal parts by tokens: synthetic errors in GSM8K, PRMBench.
        pretrained: begin with the language model's weights, or with random ones.
        tokens: training tokens, each solution seen once; steps that solutions share are counted once.
        row: packed tokens of an update.
        learning_rate: peak; see :class:`gradatim.training.TrainingSettings`.
        corruptions: wrong solutions made of each GSM8K problem.
        longest: longest solution that is learned from, in tokens.
        seed: of the head (all weights, without ``pretrained``), the errors and the order.
    """

    supervision: Literal["process", "outcome"] = "process"
    sources: tuple[Source, ...] = ("synthetic", "prmbench")
    pretrained: bool = True
    tokens: int = 400_000
    row: int = 2048
    learning_rate: float = 1e-3
    corruptions: int = 3
    longest: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole experiment.

    Attributes:
        language_model: the tokenizer and the language model.
        reward_model: the main setting; the other settings change one thing of it.
        seeds: how many models of the main setting.
        other_seeds: how many models of each other setting.
        real_problems: test problems of which the models' solutions are judged, the first so many.
        synthetic_problems: test problems in which errors are made for evaluation.
        resamples: of the intervals.
    """

    language_model: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    seeds: int = 2
    other_seeds: int = 1
    real_problems: int = 660
    synthetic_problems: int = 300
    resamples: int = 200

    def runs(self) -> list[tuple[str, RewardModelSettings]]:
        """Every model that is trained: name of its setting, and the setting with its seed; first seeds first."""
        return [
            (name, replace(variant, seed=seed))
            for seed in range(max(self.seeds, self.other_seeds))
            for name, variant in self.variants().items()
            if seed < (self.seeds if name == MAIN else self.other_seeds)
        ]

    def variants(self) -> dict[str, RewardModelSettings]:
        """The settings that are compared, by name."""
        main = self.reward_model
        one_error, rate = replace(main, corruptions=1), main.learning_rate
        return {
            MAIN: main,
            "synthetic errors only": replace(main, sources=("synthetic",)),
            "outcome, synthetic errors only": replace(main, sources=("synthetic",), supervision="outcome"),
            "random initialisation": replace(main, pretrained=False),
            "PRMBench only": replace(main, sources=("prmbench",)),
            "one error a problem": one_error,
            "one error a problem, small updates": replace(one_error, row=main.row // 4, learning_rate=rate / 2),
        }
