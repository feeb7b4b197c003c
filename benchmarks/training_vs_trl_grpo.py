"""A policy gradient over packed trees against TRL's GRPO loss over the same solutions in padded batches.

Both sides start from the same weights and compute the same loss with the same advantages; losses and gradients are
compared before anything is timed. What is timed is what an update costs apart from the optimizer: making rows or
batches of the solutions, forward passes and backward passes. TRL also computes the entropy of each prediction, and on a
CPU predictions of the prompts, which its kernel for accelerators leaves out.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.measure import alternate, result
from benchmarks.training_vs_trl_dpo import VOCABULARY, Shape, make_model, quiet, word_tokenizer
from gradatim.objectives import PolicyGradient
from gradatim.supervision.terms import Group, Term
from gradatim.training import build_row, plan_rows
from gradatim.training.forward import measured
from gradatim.training.self_check import blockwise_attention
from gradatim.tree import Node, Problem, Step, Tree

NAME = "training_vs_trl_grpo"
PEER = "trl 1.16 GRPOTrainer's loss"
TOKENS_PER_ROW = 2048
TRL_BATCH = 8  # solutions, the default of its settings
SHARE = 0.95  # of the reuse, which the ratio is to reach

# Nominal reuse -> a tree in which every step is continued; its leaves are a group.
SHAPES = {
    1: Shape(prompt=8, depth=1, branch=2, step=64),
    2: Shape(prompt=32, depth=2, branch=2, step=24),
    4: Shape(prompt=96, depth=4, branch=2, step=24),
    8: Shape(prompt=256, depth=5, branch=2, step=16),
    16: Shape(prompt=640, depth=5, branch=2, step=12),
}
TREES = {1: 8, 2: 8, 4: 2, 8: 1, 16: 1}


def make_trees(shape: Shape, count: int) -> list[Tree]:
    """Trees of one shape; lengths of steps vary by a quarter, as in real trees. Recorded log-probabilities are a little
    off any model's, so that ratios are not one."""
    source = random.Random(0)

    def tokens(mean: int) -> tuple[int, ...]:
        length = source.randint(mean - mean // 4, mean + mean // 4)
        return tuple(source.randrange(3, VOCABULARY) for _ in range(length))

    trees = []
    for number in range(count):
        prompt = [source.randrange(3, VOCABULARY) for _ in range(shape.prompt)]
        tree = Tree(Problem(str(number), ""), prompt_tokens=prompt)
        level: list[Node] = [tree.root]
        for _ in range(shape.depth):
            steps = [(node, tokens(shape.step)) for node in level for _ in range(shape.branch)]
            level = [
                tree.add(node, Step(step, "", tuple(-7.6 + 0.2 * source.random() for _ in step)))
                for node, step in steps
            ]
        trees.append(tree)
    return trees


def advantaged(trees: list[Tree]) -> list[tuple[Node, float]]:
    """Each solution with an advantage."""
    source = random.Random(1)
    return [(leaf, source.uniform(-1.5, 1.5)) for tree in trees for leaf in tree.leaves()]


def reuse(trees: list[Tree]) -> float:
    """Tokens of all solutions, prompts included, over tokens of the trees."""
    read = sum(len(leaf.tokens) for tree in trees for leaf in tree.leaves())
    return read / sum(len(node.step.tokens) for tree in trees for node in tree.nodes)


def packed_backward(model: Any, solutions: list[tuple[Node, float]]) -> float:
    """Rows, losses and gradients of an update; returns the loss."""
    objective = PolicyGradient()
    terms = [Term((Group(tuple(leaf.path()[1:]), targets=(given,) * leaf.depth),)) for leaf, given in solutions]
    rows = [build_row(part) for part in plan_rows([objective.prepared(term) for term in terms], TOKENS_PER_ROW)]
    size = torch.stack([row.sizes(objective.unit).sum() for row in rows]).sum()
    total = 0.0
    with blockwise_attention(model):
        for row in rows:
            found = objective.loss(measured(model, row, objective))
            loss: Any = (row.weight * found.per_term).sum() / size
            loss.backward()
            total += float(loss.detach())
    return total


def trl_backward(trainer: Any, solutions: list[tuple[Node, float]]) -> float:
    """Batches, losses and gradients of an update; returns the loss."""
    size = torch.tensor(sum(len(leaf.tokens) - len(leaf.tree.root.tokens) for leaf, _ in solutions))
    total = 0.0
    for start in range(0, len(solutions), TRL_BATCH):
        batch = _batch(solutions[start : start + TRL_BATCH]) | {"num_items_in_batch": size}
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        total += float(loss.detach())
    return total


def _batch(solutions: list[tuple[Node, float]]) -> dict[str, Tensor]:
    """Prompts padded on the left, completions on the right, as TRL's trainer makes them of what it sampled."""
    prompts = [list(leaf.tree.root.tokens) for leaf, _ in solutions]
    completions = [leaf.tokens[len(leaf.tree.root.tokens) :] for leaf, _ in solutions]
    recorded = [[each for node in leaf.path()[1:] for each in node.step.log_probabilities] for leaf, _ in solutions]
    left, right = max(map(len, prompts)), max(map(len, completions))
    return {
        "prompt_ids": torch.tensor([[0] * (left - len(row)) + row for row in prompts]),
        "prompt_mask": torch.tensor([[0] * (left - len(row)) + [1] * len(row) for row in prompts]),
        "completion_ids": torch.tensor([row + [0] * (right - len(row)) for row in completions]),
        "completion_mask": torch.tensor([[1] * len(row) + [0] * (right - len(row)) for row in completions]),
        "old_per_token_logps": torch.tensor([row + [0.0] * (right - len(row)) for row in recorded]),
        "advantages": torch.tensor([advantage for _, advantage in solutions]),
    }


def trl_trainer(model: Any, folder: str) -> Any:
    """TRL's trainer, whose loss is the mean over all tokens of an update, as ours is."""
    arguments = GRPOConfig(
        output_dir=folder, loss_type="dapo", epsilon=0.2, epsilon_high=0.2, beta=0.0, num_generations=2,
        per_device_train_batch_size=2, bf16=False, use_cpu=True, report_to="none", disable_tqdm=True, temperature=1.0,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer: Any = GRPOTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        arguments,
        train_dataset=Dataset.from_list([{"prompt": "t3"}]),
        processing_class=word_tokenizer(),
    )
    trainer.model.eval()  # the model has no dropout; in training its loss is divided as its own sampling asks for
    return trainer


def gradients_of(model: Any, backward: Callable[[], float]) -> tuple[float, list[Tensor]]:
    """A loss and all gradients."""
    model.zero_grad(set_to_none=True)
    loss = backward()
    return loss, [each.grad.clone() for each in model.parameters()]


def largest_difference(ours: tuple[float, list[Tensor]], theirs: tuple[float, list[Tensor]]) -> float:
    """Of the losses, and of the gradients as a share of the largest one."""
    scale = max(float(each.abs().max()) for each in theirs[1])
    differences = [float((one - other).abs().max()) / scale for one, other in zip(ours[1], theirs[1], strict=True)]
    return max(abs(ours[0] - theirs[0]), *differences)


def measure(nominal: int, *, repeats: int, memory: bool, trees: int | None = None) -> dict[str, object]:
    """Time both on trees of one reuse."""
    grown = make_trees(SHAPES[nominal], trees or TREES[nominal])
    solutions = advantaged(grown)
    model = make_model().eval()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(copy.deepcopy(model), folder)
        works = {
            "packed": partial(packed_backward, model, solutions),
            "trl": partial(trl_backward, trainer, solutions),
        }
        worst = largest_difference(gradients_of(model, works["packed"]), gradients_of(trainer.model, works["trl"]))
        if worst > 1e-4:
            raise AssertionError(f"the losses or gradients differ by {worst}")
        seconds = alternate(dict(works), repeats)
    factor = reuse(grown)
    more: dict[str, object] = {}
    if memory:
        more = {f"{side}_memory_mb": round(peak_memory(side, nominal), 1) for side in works}
    ratio = seconds["trl"] / seconds["packed"]
    return result(
        NAME, PEER, ratio, worst, round(SHARE * factor, 3), reuse=round(factor, 2), nominal_reuse=nominal,
        share_of_reuse=round(ratio / factor, 3), solutions=len(solutions), seconds=seconds, **more,
    )  # fmt: skip


def peak_memory(side: str, nominal: int) -> float:
    """Megabytes by which the passes of one batch of solutions raise the peak of a fresh process."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--measure-memory", side, str(nominal)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1])


def _measure_memory(side: str, nominal: int) -> float:
    """Run in a process of its own: all solutions of a tree in one pass on either side, after a pass over one of them,
    with which everything is loaded that is loaded once."""
    solutions = advantaged(make_trees(SHAPES[nominal], 1))
    model = make_model().eval()
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(model, folder) if side == "trl" else None
        before = 0
        for part in (solutions[:1], solutions):
            before = process.memory_info().rss
            if trainer is None:
                packed_backward(model, part)
            else:
                batch = _batch(part) | {"num_items_in_batch": torch.tensor(1)}
                trainer._compute_loss(trainer.model, batch).backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return float(peak - before) / 2**20


def run(quick: bool = False) -> list[dict[str, object]]:
    """Measure at reuse 1, 2, 4, 8 and 16 (quick: 1 and 4, once, no memory)."""
    quiet()
    if quick:
        return [measure(nominal, repeats=1, memory=False, trees=1) for nominal in (1, 4)]
    return [measure(nominal, repeats=3, memory=True) for nominal in SHAPES]


def main() -> None:
    """Print one object for each reuse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure-memory", nargs=2, metavar=("SIDE", "REUSE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        quiet()
        print(_measure_memory(options.measure_memory[0], int(options.measure_memory[1])))
        return
    for each in run(options.quick):
        print(json.dumps(each))


if __name__ == "__main__":
    main()
