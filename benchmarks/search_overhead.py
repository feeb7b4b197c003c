"""What a guided search costs beside its models, with many problems in flight."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from benchmarks.measure import (
    THREADS,
    llama_config,
    random_model,
    random_trees,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search.beam import Beam
from gradatim.search.many import search_many
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Tree

IN_FLIGHT = 64
WIDTH, BRANCH, DEPTH = 4, 4, 3
PROMPT, STEP = 64, 32
STEP_END = (" 10",)  # about every fortieth token of a random model; a step that does not end is cut off
TARGET = 0.08


@dataclass(frozen=True)
class Share:
    """Of a search's wall time: what the forward passes of its two models do not take, and theirs."""

    outside: float
    policy: float
    scorer: float
    difference: float


def run(quick: bool = False) -> list[dict[str, object]]:
    """Beam searches that a process reward model guides, with 64 problems in flight: the share of their wall time that
    is not spent in the forward passes of policy and reward model, each of 16M parameters, and, told in the settings,
    of 2M. Here ``ratio`` is that share."""
    torch.set_num_threads(THREADS)
    problems = IN_FLIGHT if quick else 2 * IN_FLIGHT
    share, small = _share("16M", problems), _share("2M", problems)
    return [
        result(
            "search_overhead",
            "the forward passes of policy and reward model",
            share.outside,
            share.difference,
            TARGET,
            what="beam guided by a process reward model",
            meaning="share of wall time outside the models, lower is better",
            share_of_policy=round(share.policy, 4),
            share_of_reward_model=round(share.scorer, 4),
            share_outside_with_2M_parameters=round(small.outside, 4),
            problems=problems,
            in_flight=IN_FLIGHT,
            width=WIDTH,
            branch=BRANCH,
            depth=DEPTH,
            prompt_tokens=PROMPT,
            step_tokens=STEP,
        )
    ]


def models(size: str) -> tuple[TransformersPolicy, ProcessRewardScorer]:
    """A policy and a process reward model, random and of one size."""
    config = llama_config(size)
    policy = TransformersPolicy(
        random_model(AutoModelForCausalLM, config),
        word_tokenizer(config.vocab_size),
        sampling=Sampling(max_step_tokens=STEP, max_steps=DEPTH, boundary=Delimiter(at=STEP_END)),
    )
    judging = llama_config(size)
    judging.num_labels = 1
    return policy, ProcessRewardScorer(random_model(AutoModelForTokenClassification, judging))


async def guided(policy: TransformersPolicy, scorer: ProcessRewardScorer, seed: int, problems: int) -> list[Tree]:
    """A guided beam search over every problem."""
    search = Beam(width=WIDTH, branch=BRANCH)

    async def beam(tree: Tree) -> None:
        await search(tree, policy, scorer)
        policy.release(tree)
        scorer.release(tree)

    return await search_many(random_trees(problems, PROMPT, seed), beam, in_flight=IN_FLIGHT)


def _share(size: str, problems: int) -> Share:
    """The shares, and the largest difference between recorded and teacher-forced log-probabilities."""
    policy, scorer = models(size)
    asyncio.run(guided(policy, scorer, seed=0, problems=4))  # warms up
    writing, judging = policy.statistics.seconds, scorer.statistics.seconds
    started = time.perf_counter()
    trees = asyncio.run(guided(policy, scorer, 1, problems))
    total = time.perf_counter() - started
    writing, judging = policy.statistics.seconds - writing, scorer.statistics.seconds - judging
    assert all(scorer.name in node.scores for tree in trees for node in tree.nodes[1:] if node.open), "not guided"
    reference = random_model(AutoModelForCausalLM, llama_config(size))
    difference = max(teacher_forced_difference(reference, node) for tree in trees[:4] for node in tree.leaves())
    assert difference < 1e-4, f"recorded log-probabilities differ from the model's by {difference}"
    return Share(1 - (writing + judging) / total, writing / total, judging / total, difference)
