"""What a search costs beside the model, with many problems in flight."""

from __future__ import annotations

import asyncio
import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.measure import (
    THREADS,
    llama_config,
    random_model,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.search.many import search_many
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Problem, Tree

IN_FLIGHT = 64
WIDTH, BRANCH, DEPTH = 4, 4, 3
PROMPT, STEP = 64, 32
STEP_END = (" 10",)  # about every fortieth token of a random model
TARGET = 0.04


def run(quick: bool = False) -> list[dict[str, object]]:
    """The share of the wall time of beam searches with 64 problems in flight that is not spent in the model's forward
    passes, for a model of 16M parameters and, told in the settings, for one of 2M. Here ``ratio`` is that share."""
    torch.set_num_threads(THREADS)
    problems = IN_FLIGHT if quick else 2 * IN_FLIGHT
    shares = {size: _share(size, problems) for size in ("16M", "2M")}
    return [
        result(
            "search_overhead",
            "the model's forward passes",
            shares["16M"][0],
            shares["16M"][1],
            TARGET,
            meaning="share of wall time outside the model, lower is better",
            problems=problems,
            in_flight=IN_FLIGHT,
            width=WIDTH,
            branch=BRANCH,
            depth=DEPTH,
            prompt_tokens=PROMPT,
            step_tokens=STEP,
            share_with_2M_parameters=round(shares["2M"][0], 4),
        )
    ]


def _share(size: str, problems: int) -> tuple[float, float]:
    """The share, and the largest difference between recorded and teacher-forced log-probabilities."""
    config = llama_config(size)
    policy = TransformersPolicy(
        random_model(AutoModelForCausalLM, config),
        word_tokenizer(config.vocab_size),
        sampling=Sampling(max_step_tokens=STEP, boundary=Delimiter(at=STEP_END)),
    )
    asyncio.run(_search(policy, seed=0, problems=4))  # warms up
    before, started = policy.statistics.seconds, time.perf_counter()
    trees = asyncio.run(_search(policy, 1, problems))
    total, inside = time.perf_counter() - started, policy.statistics.seconds - before
    reference = random_model(AutoModelForCausalLM, llama_config(size))
    difference = max(teacher_forced_difference(reference, node) for tree in trees[:4] for node in tree.leaves())
    assert difference < 1e-4, f"recorded log-probabilities differ from the model's by {difference}"
    return 1 - inside / total, difference


async def _search(policy: TransformersPolicy, seed: int, problems: int) -> list[Tree]:
    """A beam search over every problem. Which nodes survive does not matter here: the last ones do."""
    generator = torch.Generator().manual_seed(seed)
    trees = [
        Tree(
            Problem(str(number), ""),
            seed=seed,
            prompt_tokens=torch.randint(4, 500, (PROMPT,), generator=generator).tolist(),
        )
        for number in range(problems)
    ]

    async def beam(tree: Tree) -> None:
        frontier = [tree.root]
        for _ in range(DEPTH):
            children = list(dict.fromkeys(await policy.extend(frontier, WIDTH * BRANCH // len(frontier))))
            frontier = [child for child in children if child.open][-WIDTH:]
            if not frontier:
                return
        policy.release(tree)

    return await search_many(trees, beam, in_flight=IN_FLIGHT)
