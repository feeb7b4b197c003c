"""The engine against transformers' ``generate`` and ``generate_batch``, on the work of a beam search: many branches
of one long path."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.measure import THREADS, VOCABULARY, alternate, llama_config, random_model, result, word_tokenizer
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.tree import EndReason, Node, Problem, Step, Tree

PREFIX, BRANCHES, NEW = 256, 32, 32


def run(quick: bool = False) -> list[dict[str, object]]:
    """Both comparisons. Every branch differs from the others in its first token and is then continued greedily, so
    that all three must write the same tokens; the engine's log-probabilities are compared with teacher-forced ones."""
    torch.set_num_threads(THREADS)
    config = llama_config("16M")
    ours, theirs = random_model(AutoModelForCausalLM, config), random_model(AutoModelForCausalLM, config)
    batched = random_model(AutoModelForCausalLM, config)
    policy = TransformersPolicy(ours, word_tokenizer(VOCABULARY))
    prefix = torch.randint(4, VOCABULARY, (PREFIX,), generator=torch.Generator().manual_seed(1)).tolist()
    heads = list(range(100, 100 + BRANCHES))

    children: list[Node] = []

    def engine() -> None:
        children[:] = asyncio.run(_expand(policy, prefix, heads))

    def generate() -> torch.Tensor:
        ids = torch.tensor([[*prefix, head] for head in heads])
        output: torch.Tensor = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW
        )
        return output

    def generate_batch() -> list[list[int]]:
        outputs = batched.generate_batch(
            [[*prefix, head] for head in heads],
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE, num_blocks=BLOCKS, max_batch_tokens=2 * PREFIX, allow_block_sharing=True
            ),
        )
        return [outputs[key].generated_tokens for key in sorted(outputs, key=lambda key: int(key.rsplit("_", 1)[-1]))]

    engine()
    print([len(c.step.tokens) for c in children][:5])
    for a in (children[0].step.tokens, generate()[0, PREFIX + 1 :].tolist(), generate_batch()[0]):
        print(a)
    print(alternate({"engine": engine, "generate": generate, "batch": generate_batch}, 3))
    return []


PAGE, BLOCKS = 32, 256


async def _expand(policy: TransformersPolicy, prefix: list[int], heads: list[int]) -> list[Node]:
    """The branches of a fresh tree, continued greedily."""
    tree = Tree(Problem("bench", ""), prompt_tokens=prefix)
    first = [tree.add(tree.root, Step((head,), "", (), EndReason.BOUNDARY)) for head in heads]
    sampling = Sampling(temperature=0, max_step_tokens=NEW, step_end=("never",))
    children = await policy.expand(first, 1, sampling)
    policy.release(tree)
    return children


if __name__ == "__main__":
    run()
