"""The engine against transformers' ``generate`` and ``generate_batch``, on the work of a beam search: many branches
of one long path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.measure import (
    END,
    THREADS,
    VOCABULARY,
    alternate,
    llama_config,
    random_model,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Node, Problem, Step, Tree

PREFIX, BRANCHES, NEW = 256, 32, 32
TARGET_GENERATE, TARGET_GENERATE_BATCH = 2.5, 4.0
# The peer's fastest settings on a CPU, of those tried: pages of 16 to 288 tokens, batches of 64 to 9,000 tokens, the
# branches as one forked request or as requests that share a prefix, a fresh manager or one that is kept. (Compiled
# and asynchronous batching need an accelerator.)
BATCHING = {"page_size": 32, "num_blocks": 256, "max_batch_tokens": 512, "allow_block_sharing": True}


def run(quick: bool = False) -> list[dict[str, object]]:
    """Both comparisons. Before anything is timed, all three continue the same 32 paths greedily and must write the
    same tokens, and the engine's recorded log-probabilities must be those of the peers' model."""
    torch.set_num_threads(THREADS)
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    config = llama_config("16M")
    policy = TransformersPolicy(random_model(AutoModelForCausalLM, config), word_tokenizer(VOCABULARY))
    model = random_model(AutoModelForCausalLM, llama_config("16M"))
    batching_model = random_model(AutoModelForCausalLM, llama_config("16M"))
    prefix = torch.randint(4, VOCABULARY, (PREFIX,), generator=torch.Generator().manual_seed(1)).tolist()
    _assert_same_greedy_tokens(policy, model, batching_model, prefix)
    children = asyncio.run(_expand(policy, prefix))
    difference = max(teacher_forced_difference(model, child) for child in children)
    assert difference < 1e-4, f"the engine's log-probabilities differ from the model's by {difference}"

    works = {
        "engine": lambda: asyncio.run(_expand(policy, prefix)),
        "generate": lambda: _generate(model, [prefix], do_sample=True, top_k=0, num_return_sequences=BRANCHES),
        "generate_batch": lambda: _generate_batch(
            batching_model, [prefix], do_sample=True, top_k=0, num_return_sequences=BRANCHES
        ),
    }
    seconds = alternate(works, repeats=1 if quick else 5)
    batching_model.destroy_cached_continuous_batching_manager()
    settings: dict[str, object] = {
        "parameters": model.num_parameters(),
        "prefix_tokens": PREFIX,
        "branches": BRANCHES,
        "new_tokens": NEW,
        "transformers": transformers.__version__,
        "tokens_per_second": {name: round(BRANCHES * NEW / value, 1) for name, value in seconds.items()},
    }
    return [
        result(
            "engine_vs_generate",
            "transformers generate",
            seconds["generate"] / seconds["engine"],
            difference,
            TARGET_GENERATE,
            **settings,
        ),
        result(
            "engine_vs_generate_batch",
            "transformers generate_batch (continuous batching, forked from one prefix)",
            seconds["generate_batch"] / seconds["engine"],
            difference,
            TARGET_GENERATE_BATCH,
            **settings,
            batching=BATCHING,
        ),
    ]


async def _expand(policy: TransformersPolicy, prefix: Sequence[int]) -> list[Node]:
    """Branches of a fresh tree's root, sampled."""
    tree = Tree(Problem("bench", ""), prompt_tokens=prefix)
    await policy.extend(
        [tree.root], BRANCHES, sampling=Sampling(max_step_tokens=NEW, boundary=Delimiter(at=("never",)))
    )
    children = tree.root.children
    policy.release(tree)
    return children


def _generate(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    """What ``generate`` writes after the prompts, which are of one length."""
    ids = torch.tensor(prompts)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, **options)
    written: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return written


def _generate_batch(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    """What ``generate_batch`` writes after the prompts."""
    outputs = model.generate_batch(
        [list(prompt) for prompt in prompts],
        generation_config=GenerationConfig(max_new_tokens=NEW, eos_token_id=-1, pad_token_id=0, **options),
        continuous_batching_config=ContinuousBatchingConfig(**BATCHING),
        persistent_manager=options.get("num_return_sequences", 1) > 1,
        warmup=False,
    )
    written = [list(output.generated_tokens) for output in outputs.values()]
    assert all(len(tokens) == NEW for tokens in written), "generate_batch did not write all tokens"
    return written


def _assert_same_greedy_tokens(policy: TransformersPolicy, model: Any, batching_model: Any, prefix: list[int]) -> None:
    """Every path is the prefix and one token more, different for each branch."""
    prompts = [[*prefix, head] for head in range(100, 100 + BRANCHES)]
    tree = Tree(Problem("bench", ""), prompt_tokens=prefix)
    heads = [tree.add(tree.root, Step((prompt[-1],), "")) for prompt in prompts]
    sampling = Sampling(temperature=0, max_step_tokens=NEW, boundary=Delimiter(at=("never",)))
    ours = [list(child.step.tokens) for child in asyncio.run(policy.extend(heads, sampling=sampling))]
    for theirs in (
        _generate(model, prompts, do_sample=False),
        _generate_batch(batching_model, prompts, do_sample=False),
    ):
        for prompt, one, other in zip(prompts, ours, theirs, strict=True):
            assert_same(model, prompt, one, other, {END})


def assert_same(model: Any, prompt: list[int], one: list[int], other: list[int], ends: set[int]) -> None:
    """Both wrote the same, up to a place where two tokens are equally likely to within rounding; one that does not stop
    at an end token may go on behind it."""
    place = next((place for place in range(min(len(one), len(other))) if one[place] != other[place]), None)
    if place is None:
        assert len(one) == len(other) or ends & {*one}, "one wrote more than the other"
        return
    with torch.inference_mode():
        log_probabilities = model(torch.tensor([[*prompt, *one[:place]]])).logits[0, -1].log_softmax(-1)
    gap = float((log_probabilities[one[place]] - log_probabilities[other[place]]).abs())
    assert gap < 1e-4 or ends & {one[place], other[place]}, f"greedy tokens differ where their gap is {gap}"
