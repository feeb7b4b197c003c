"""Held-out measures that training is stopped by."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradatim.evaluation.metrics import best_threshold
from gradatim.pipeline.context import Run
from gradatim.pipeline.parts import make_chat, make_sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.search.many import search_many
from gradatim.tasks.base import Oracle, Task, grade
from gradatim.training.examples import Example, TrainingRow, build_row, plan_rows
from gradatim.training.forward import step_logits
from gradatim.training.objectives.process_reward import process_reward_loss
from gradatim.tree import Problem, Tree


class HeldOutLabels:
    """How well a process reward model predicts the labels of held-out steps.

    Args:
        examples: the labelled steps.
        tokens_per_row: packed tokens in one forward pass at most.
    """

    def __init__(self, examples: Sequence[Example], tokens_per_row: int) -> None:
        parts = plan_rows(examples, tokens_per_row, seed=None)
        self.examples = [example for part in parts for example in part]
        self.rows = [build_row(part) for part in parts]
        self.labels = torch.tensor([example.target for example in self.examples])
        self.weights = torch.tensor([example.weight for example in self.examples])

    def negative_loss(self, model: Any) -> float:
        """Minus the mean binary cross-entropy."""
        return -float(process_reward_loss(self.logits(model), self.labels, self.weights))

    def threshold(self, model: Any, task: Task) -> float | None:
        """The score above which a step is best called right, by the truth about the held-out partial solutions.

        ``None`` where the task knows no truth or no score tells it.
        """
        if not isinstance(task, Oracle):
            return None
        nodes = [example.groups[0][-1] for example in self.examples]
        scores = self.logits(model).sigmoid().tolist()
        judged = [
            (task.solvable(node.tree.problem, node.text), score)
            for node, score in zip(nodes, scores, strict=True)
            if node.open
        ]
        if not judged:
            return None
        threshold = best_threshold([truth for truth, _ in judged], [score for _, score in judged])[0]
        return threshold if math.isfinite(threshold) else None

    def logits(self, model: Any) -> Tensor:
        """The model's logit of every example, (examples,)."""
        device = next(model.parameters()).device
        with torch.no_grad():
            parts = [
                step_logits(model, TrainingRow(**{name: value.to(device) for name, value in row.tensors().items()}))
                for row in self.rows
            ]
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
        asyncio.run(
            search_many(
                trees,
                lambda tree: policy.rollout([tree.root], self.samples),
                self.run.recipe.evaluation.in_flight,
                policy.release,
            )
        )
        for tree in trees:
            grade(tree, self.run.task)
        rewards = [(leaf.reward or 0.0) * leaf.multiplicity for tree in trees for leaf in tree.leaves()]
        return sum(rewards) / (self.samples * len(trees))
