"""How far the limit is: the engine against the bare matrix products of the same tokens, and training on a packed tree
against a plain causal row of as many tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.engine_vs_generate import BRANCHES, NEW, PREFIX, _expand
from benchmarks.measure import (
    THREADS,
    VOCABULARY,
    alternate,
    llama_config,
    random_model,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.objectives.sft import Sft
from gradatim.policies.transformers import TransformersPolicy
from gradatim.supervision.terms import Group, Term
from gradatim.training import TrainingRow, build_row
from gradatim.training.forward import measured
from gradatim.training.self_check import blockwise_attention
from gradatim.tree import Node, Problem, Step, Tree

TARGET_TRAINING = 1.15
PROMPT, STEP = 128, 24
SHAPES = {"a chain": (1, 37), "a tree": (3, 3)}  # children of each step, and depth: about a thousand tokens


def run(quick: bool = False) -> list[dict[str, object]]:
    """Both comparisons; ratios are our time over that of the limit, so lower is better."""
    torch.set_num_threads(THREADS)
    repeats = 1 if quick else 5
    return [_engine(repeats), *(_training(name, repeats) for name in SHAPES)]


def _engine(repeats: int) -> dict[str, object]:
    """A beam search's work: many branches of one long prefix. The limit counts no attention, norms or sampling."""
    model = random_model(AutoModelForCausalLM, llama_config("16M"))
    policy = TransformersPolicy(random_model(AutoModelForCausalLM, llama_config("16M")), word_tokenizer(VOCABULARY))
    prefix = torch.randint(4, VOCABULARY, (PREFIX,), generator=torch.Generator().manual_seed(1)).tolist()
    difference = max(teacher_forced_difference(model, child) for child in asyncio.run(_expand(policy, prefix)))
    weights = [each.weight for each in model.modules() if isinstance(each, nn.Linear)]

    def products() -> None:
        with torch.inference_mode():
            for rows, times in ((PREFIX, 1), (BRANCHES, NEW)):
                inputs = {size: torch.ones(rows, size) for size in {weight.shape[1] for weight in weights}}
                for _ in range(times):
                    for weight in weights:
                        F.linear(inputs[weight.shape[1]], weight)

    works: dict[str, Callable[[], object]] = {
        "engine": lambda: asyncio.run(_expand(policy, prefix)),
        "products": products,
    }
    seconds = alternate(works, repeats)
    return result(
        "engine_vs_matrix_products",
        "the bare matrix products of the same tokens",
        seconds["engine"] / seconds["products"],
        difference,
        0.0,
        what=f"{BRANCHES} branches of {NEW} tokens",
        seconds=seconds,
    )


def _training(name: str, repeats: int) -> dict[str, object]:
    """One forward and backward pass over all steps of a tree in a row, and over a text of as many tokens."""
    model = random_model(AutoModelForCausalLM, llama_config("16M")).train()
    row = build_row([Term((Group((node,)),)) for node in _tree(*SHAPES[name]).nodes[1:]])
    ids = row.input_ids[None]
    works: dict[str, Callable[[], object]] = {
        "packed": lambda: _step(model, _packed_loss(model, row)),
        "causal": lambda: _step(model, _causal_loss(model, ids, 1)),
    }
    chain = build_row([Term((Group((node,)),)) for node in _tree(1, 8).nodes[1:]])
    difference = float((_packed_loss(model, chain) - _causal_loss(model, chain.input_ids[None], PROMPT)).abs())
    seconds = alternate(works, repeats)
    return result(
        "training_vs_causal_row",
        "a plain causal row of equal length",
        seconds["packed"] / seconds["causal"],
        difference,
        TARGET_TRAINING,
        what=f"{name} of {ids.shape[1]} tokens",
        seconds=seconds,
    )


def _packed_loss(model: Any, row: TrainingRow) -> Tensor:
    objective = Sft()
    with blockwise_attention(model):
        quantities = measured(model, row, objective)
    total: Tensor = (quantities.weight * objective.loss(quantities).per_term).sum()
    return total / quantities.sizes(objective.unit).sum()


def _causal_loss(model: Any, ids: Tensor, begin: int) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, begin - 1 : -1]
    return F.cross_entropy(logits, ids[0, begin:])


def _step(model: Any, loss: Any) -> None:
    loss.backward()
    model.zero_grad(set_to_none=True)


def _tree(branch: int, depth: int) -> Tree:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())

    tree = Tree(Problem("bench", ""), prompt_tokens=tokens(PROMPT))
    level: list[Node] = [tree.root]
    for _ in range(depth):
        level = [tree.add(node, Step(tokens(STEP), "")) for node in level for _ in range(branch)]
    return tree
