"""Held-out measures that training is stopped by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradatim.evaluation.steps import Thresholds, choose_thresholds, scored_states
from gradatim.event_loop import run_to_end
from gradatim.objectives.step_judgement import judgement_loss
from gradatim.policies.transformers import TransformersPolicy
from gradatim.run.context import Run
from gradatim.run.parts import make_chat, make_sampling
from gradatim.search.many import search_many
from gradatim.supervision.terms import Group, Term
from gradatim.tasks.base import Task, grade
from gradatim.tasks.truth import state_truth
from gradatim.training.forward import step_logits
from gradatim.training.rows import TrainingRow, build_row, plan_rows
from gradatim.tree import Problem, Tree

_HELD_OUT = "held-out"  # the name of a trained scorer's scores in the trees that choose its thresholds


class HeldOutLabels:
    """How well a process reward model predicts the labels of held-out steps.

    Args:
        labels: the labelled steps.
        tokens_per_row: packed tokens in one forward pass at most.
    """

    def __init__(self, labels: Sequence[Term], tokens_per_row: int) -> None:
        parts = plan_rows(labels, tokens_per_row, seed=None)
        self.terms = [term for part in parts for term in part]
        self.rows = [build_row(part) for part in parts]
        self.labels = torch.tensor([term.targets[0] for term in self.terms])
        self.weights = torch.tensor([term.weight for term in self.terms])

    def negative_loss(self, model: Any) -> float:
        """Minus the mean binary cross-entropy."""
        losses = judgement_loss(self.logits(model), self.labels)
        return -float((self.weights * losses).sum() / self.weights.sum())

    def logits(self, model: Any) -> Tensor:
        """The model's logit of every step, (terms,)."""
        return _logits(model, self.rows)


def held_out_thresholds(model: Any, trees: Sequence[Tree], task: Task, tokens_per_row: int) -> Thresholds:
    """The thresholds of a process reward model that are best by the truth about held-out trees.

    Every step is scored, whether it has a label or not, so that whole solutions are judged from their first step on.

    Args:
        model: the reward model.
        trees: of held-out problems, in the model's tokens.
        task: knows the truth; without an oracle there are no thresholds.
        tokens_per_row: packed tokens in one forward pass at most.
    """
    if state_truth(task) is None:
        return Thresholds()
    terms = [Term((Group((node,)),)) for tree in trees for node in tree.nodes[1:]]
    parts = plan_rows(terms, tokens_per_row, seed=None)
    if not parts:
        return Thresholds()
    scores = _logits(model, [build_row(part) for part in parts]).sigmoid().tolist()
    nodes = [term.ends[0] for part in parts for term in part]
    for node, score in zip(nodes, scores, strict=True):
        node.scores[_HELD_OUT] = score
    return choose_thresholds([scored_states(tree, task, _HELD_OUT) for tree in trees])


def _logits(model: Any, rows: Sequence[TrainingRow]) -> Tensor:
    """The model's logit of every term of ``rows``, a step each, (terms,)."""
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = []
        for row in rows:
            moved = TrainingRow(**{name: value.to(device) for name, value in row.tensors().items()})
            parts.append(moved.ends(step_logits(model, moved)))
    return torch.cat(parts).cpu()


class SampledAccuracy:
    """The share of right solutions that a policy samples for held-out problems, with the same draws every time.

    Args:
        run: knows the task and how to sample.
        tokenizer: of the policy.
        problems: the held-out problems.
        samples: solutions sampled for each.
    """

    def __init__(self, run: Run, tokenizer: Any, problems: Sequence[Problem], samples: int) -> None:
        self.run = run
        self.tokenizer = tokenizer
        self.problems = problems
        self.samples = samples

    def __call__(self, model: Any) -> float:
        """Measure ``model``, whose attention is replaced."""
        options = self.run.recipe.policy
        policy = TransformersPolicy(
            model,
            self.tokenizer,
            sampling=make_sampling(options.sampling, self.run.task),
            chat=make_chat(options),
            max_branches=options.max_branches,
        )
        trees = [Tree(problem, seed=self.run.seed("validation")) for problem in self.problems]
        run_to_end(
            search_many(
                trees,
                lambda tree: policy.extend([tree.root], self.samples, steps=None),
                self.run.recipe.evaluation.in_flight,
                policy.release,
            )
        )
        for tree in trees:
            grade(tree, self.run.task)
        right = sum(leaf.multiplicity for tree in trees for leaf in tree.leaves() if leaf.correct)
        return right / (self.samples * len(trees))
