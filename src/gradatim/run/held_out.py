"""Held-out measures that training is stopped by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradatim.engine.loading import load_tokenizer
from gradatim.evaluation.steps import Thresholds, choose_thresholds, scored_states
from gradatim.event_loop import run_to_end
from gradatim.objectives.base import Objective
from gradatim.objectives.process_reward import ProcessReward
from gradatim.policies.base import Policy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.run.context import Run
from gradatim.run.models import make_sampling
from gradatim.search.many import search_many
from gradatim.supervision.terms import Group, Term
from gradatim.tasks.base import Task, grade
from gradatim.tasks.truth import state_truth
from gradatim.training.forward import measured
from gradatim.training.rows import build_row, plan_rows
from gradatim.tree import Node, Problem, Tree

_HELD_OUT = "held-out"  # the name of a trained scorer's scores in the trees that choose its thresholds


class HeldOutLoss:
    """An objective's loss over held-out terms, negated, so that higher is better.

    Args:
        objective: the loss; a reference that it needs is what the trees recorded.
        terms: what it is over.
        tokens_per_row: packed tokens in one forward pass at most.
    """

    def __init__(self, objective: Objective, terms: Sequence[Term], tokens_per_row: int) -> None:
        self.objective = objective
        prepared = [objective.prepared(term) for term in terms]
        self.rows = [build_row(part) for part in plan_rows(prepared, tokens_per_row, seed=None)]

    def __call__(self, model: Any) -> float:
        losses, sizes, device = 0.0, 0.0, next(model.parameters()).device
        with torch.no_grad():
            for row in self.rows:
                quantities = measured(model, row.to(device), self.objective)
                losses += float((quantities.weight * self.objective.loss(quantities).per_term).sum())
                sizes += float(quantities.sizes(self.objective.unit).sum())
        return -losses / max(sizes, 1e-12)


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
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    for node, score in step_scores(model, nodes, tokens_per_row).items():
        node.scores[_HELD_OUT] = score
    return choose_thresholds([scored_states(tree, task, _HELD_OUT) for tree in trees])


def step_scores(model: Any, nodes: Sequence[Node], tokens_per_row: int) -> dict[Node, float]:
    """The probability that each step is right, by a reward model in training; trees are in the model's tokens."""
    found: dict[Node, float] = {}
    device = next(model.parameters()).device
    for part in plan_rows([Term((Group((node,)),)) for node in nodes], tokens_per_row, seed=None):
        with torch.no_grad():
            quantities = measured(model, build_row(part).to(device), ProcessReward())
        scores = quantities.ends(quantities.heads["score"]).sigmoid().tolist()
        found.update(zip((term.ends[0] for term in part), scores, strict=True))
    return found


class SampledAccuracy:
    """The share of right solutions that a policy samples for held-out problems, with the same draws every time.

    Args:
        run: knows the task and how to sample.
        path: where the policy's tokenizer is.
        problems: the held-out problems.
        samples: solutions sampled for each.
    """

    def __init__(self, run: Run, path: str, problems: Sequence[Problem], samples: int) -> None:
        self.run = run
        self.tokenizer = load_tokenizer(path)
        self.problems = problems
        self.samples = samples

    def __call__(self, model: Any) -> float:
        """Measure ``model``, whose attention is replaced."""
        options = self.run.recipe.policy
        policy = TransformersPolicy(
            model,
            self.tokenizer,
            sampling=make_sampling(options.sampling, self.run.task),
            chat=options.chat,
            max_branches=options.max_branches,
        )
        return sampled_accuracy(self.run, policy, self.problems, self.samples)[0]


def sampled_accuracy(run: Run, policy: Policy, problems: Sequence[Problem], samples: int) -> tuple[float, int]:
    """The share of right solutions that a policy samples for held-out problems, with the same draws every time, and the
    tokens that it read and wrote for that."""
    trees = [Tree(problem, seed=run.seed("validation")) for problem in problems]
    run_to_end(
        search_many(
            trees,
            lambda tree: policy.extend([tree.root], samples, steps=None),
            run.recipe.evaluation.in_flight,
            policy.release,
        )
    )
    for tree in trees:
        grade(tree, run.task)
    right = sum(leaf.multiplicity for tree in trees for leaf in tree.leaves() if leaf.correct)
    return right / (samples * len(trees)), sum(tree.budget.total for tree in trees)
