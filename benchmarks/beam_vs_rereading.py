"""A whole guided beam search: the tree as cache, against a beam that writes and judges from whole texts.

The peer is the beam of Hugging Face's search-and-learn and of ThinkBooster as they are documented, in words of our own:
in every round each kept path is given to ``generate`` from its first token on, and the reward model reads every
candidate's whole path. (search-and-learn itself is written for vLLM, which has no wheel for a machine without a GPU;
ThinkBooster's own code is measured in :mod:`benchmarks.beam_vs_thinkbooster`.)
"""

from __future__ import annotations

import asyncio
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from benchmarks.measure import (
    THREADS,
    VOCABULARY,
    alternate,
    llama_config,
    random_model,
    random_trees,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.base import Scorer
from gradatim.scorers.layouts import label_probability
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search.beam import Beam
from gradatim.search.many import search_many
from gradatim.text.boundaries.tokens import Tokens
from gradatim.tree import Tree

WIDTH, BRANCH, DEPTH = 4, 4, 4
PROMPT, STEP = 128, 24
TARGET = 2.0
GUIDED = Beam(width=WIDTH, branch=BRANCH)


def run(quick: bool = False) -> list[dict[str, object]]:
    """One problem, and four at once: the peer takes the paths of all of them in one batch, which needs no padding,
    since all are of one length. Ratios are of the time for a written token."""
    torch.set_num_threads(THREADS)
    return [_compare(problems, repeats=1 if quick else 3) for problems in (1, 4)]


def _compare(problems: int, repeats: int) -> dict[str, object]:
    policy, scorer = make_policy(), ProcessRewardScorer(_judge())
    model, judge = random_model(AutoModelForCausalLM, llama_config("16M")), _judge()
    trees = asyncio.run(searched(policy, scorer, problems))
    difference = _checked(trees, scorer.name, model, judge)
    prompts = torch.tensor([list(tree.root.tokens) for tree in trees])
    seconds = alternate(
        {
            "tree": lambda: asyncio.run(searched(policy, scorer, problems)),
            "rereading": lambda: _reread_beam(model, judge, prompts),
        },
        repeats,
    )
    written = {
        "tree": sum(written_tokens(tree) for tree in trees),
        "rereading": problems * WIDTH * BRANCH * DEPTH * STEP,
    }
    assert abs(written["tree"] / written["rereading"] - 1) < 0.1, f"the searches wrote differently much: {written}"
    each = {name: seconds[name] / written[name] for name in written}
    return result(
        "beam_vs_rereading",
        "transformers generate and a token classifier, from whole texts",
        each["rereading"] / each["tree"],
        difference,
        TARGET,
        what=f"{problems} problem{'s' * (problems > 1)} at once",
        parameters=model.num_parameters(),
        width=WIDTH,
        branch=BRANCH,
        depth=DEPTH,
        prompt_tokens=PROMPT,
        step_tokens=STEP,
        seconds=seconds,
        tokens_written=written,
        tokens_per_second={name: round(1 / value, 1) for name, value in each.items()},
        transformers=transformers.__version__,
    )


def make_policy() -> TransformersPolicy:
    """A random policy of 16M parameters whose steps are all of one length (but for an end token by chance)."""
    return TransformersPolicy(
        random_model(AutoModelForCausalLM, llama_config("16M")),
        word_tokenizer(VOCABULARY),
        sampling=Sampling(max_step_tokens=2 * STEP, max_steps=DEPTH, boundary=Tokens(count=STEP)),
    )


async def searched(policy: TransformersPolicy, scorer: Scorer, problems: int, search: Beam = GUIDED) -> list[Tree]:
    """Trees that a guided beam grew, all at once."""

    async def beam(tree: Tree) -> None:
        await search(tree, policy, scorer)
        policy.release(tree)
        scorer.release(tree)

    return await search_many(random_trees(problems, PROMPT), beam)


def written_tokens(tree: Tree) -> int:
    return sum(node.multiplicity * len(node.step.tokens) for node in tree.nodes[1:])


def _judge() -> Any:
    config = llama_config("16M")
    config.num_labels = 1
    return random_model(AutoModelForTokenClassification, config)


def _checked(trees: list[Tree], name: str, model: Any, judge: Any) -> float:
    """The largest difference between what the search recorded and what its models say of whole paths."""
    nodes = [node for tree in trees[:2] for node in tree.nodes[1:] if name in node.scores]
    with torch.inference_mode():
        reread = [
            float(label_probability(judge(input_ids=torch.tensor([node.tokens])).logits[:, -1])) for node in nodes
        ]
    scores = max(abs(node.scores[name] - score) for node, score in zip(nodes, reread, strict=True))
    assert scores < 1e-5, f"the scores differ by {scores}"
    log_probabilities = max(teacher_forced_difference(model, node) for node in nodes)
    assert log_probabilities < 1e-4, f"recorded log-probabilities differ from the model's by {log_probabilities}"
    return max(scores, log_probabilities)


def _reread_beam(model: Any, judge: Any, prompts: torch.Tensor) -> torch.Tensor:
    """The paths that a beam keeps at last, (problems * width, tokens); ``prompts`` is (problems, tokens)."""
    problems = len(prompts)
    paths, draws = prompts, WIDTH * BRANCH
    for _ in range(DEPTH):
        candidates = model.generate(
            paths,
            attention_mask=torch.ones_like(paths),
            do_sample=True,
            top_k=0,
            num_return_sequences=draws,
            max_new_tokens=STEP,
            min_new_tokens=STEP,
        )
        with torch.inference_mode():
            scores = label_probability(judge(input_ids=candidates, use_cache=False).logits[:, -1])
        best = scores.view(problems, -1).topk(WIDTH).indices
        paths = candidates.view(problems, -1, candidates.shape[1]).gather(
            1, best[:, :, None].expand(-1, -1, candidates.shape[1])
        )
        paths, draws = paths.flatten(0, 1), BRANCH
    return paths
