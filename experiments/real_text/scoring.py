"""Step scores of whole data sets, from packed rows: each token of a tree is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from experiments.real_text.documents import Solution
from experiments.real_text.trees import solution_trees
from gradatim.supervision import Group, Term
from gradatim.training import TrainingRow, build_row, plan_rows
from gradatim.training.forward import step_logits, token_log_probabilities
from gradatim.training.self_check import blockwise_attention
from gradatim.tree import Node

StepScores = list[list[float]]  # for each solution, the score of each step

_ROW = 2048  # packed tokens of a forward pass


def reward_scores(model: Any, tokenizer: PreTrainedTokenizerBase, solutions: Sequence[Solution]) -> StepScores:
    """The probability that each step is right, as a reward model says."""

    def measure(row: TrainingRow) -> torch.Tensor:
        return row.ends(step_logits(model, row)).sigmoid()

    return _scores(model, tokenizer, solutions, measure)


def likelihood_scores(model: Any, tokenizer: PreTrainedTokenizerBase, solutions: Sequence[Solution]) -> StepScores:
    """The geometric mean of the probabilities of each step's tokens under a language model."""

    def measure(row: TrainingRow) -> torch.Tensor:
        return (row.sums(token_log_probabilities(model, row)) / row.groups(row.lengths)).exp()

    return _scores(model, tokenizer, solutions, measure)


def _scores(model: Any, tokenizer: PreTrainedTokenizerBase, solutions: Sequence[Solution], measure: Any) -> StepScores:
    trees, ends = solution_trees(solutions, tokenizer)
    terms = [Term((Group((node,)),)) for tree in trees for node in tree.nodes[1:]]
    scores: dict[Node, float] = {}
    model.eval()
    with torch.inference_mode(), blockwise_attention(model), torch.autocast(model.device.type, torch.bfloat16):
        for part in plan_rows(terms, _ROW, seed=None):
            values = measure(build_row(part)).tolist()
            scores.update((term.ends[0], value) for term, value in zip(part, values, strict=True))
    return [[scores[node] for node in end.path()[1:]] for end in ends]
