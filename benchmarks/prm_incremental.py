"""Process reward scoring of a growing tree: from cached states against re-reading every path."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from transformers import AutoModelForTokenClassification

from benchmarks.measure import THREADS, VOCABULARY, alternate, llama_config, random_model, result
from gradatim.scorers.layouts import label_probability
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tree import Node, Problem, Step, Tree

PROMPT, STEP, WIDTH, BRANCH, DEPTH = 128, 16, 4, 4, 8
TARGET = 3.0


def run(quick: bool = False) -> list[dict[str, object]]:
    """A tree that grows as in a beam search: every level's steps are scored before the next level exists. The peer
    reads each new step's whole path again, all paths of a level in one batch (all of one length: nothing is padded)."""
    torch.set_num_threads(THREADS)
    scorer = ProcessRewardScorer(_model())
    model = _model()
    tree, levels = _grown_tree()

    def incremental() -> torch.Tensor:
        for node in tree.nodes:
            node.scores.clear()
        asyncio.run(_score(scorer, levels))
        scorer.release(tree)
        return torch.tensor([node.scores[scorer.name] for level in levels for node in level])

    def reread() -> torch.Tensor:
        return torch.cat([_reread(model, level) for level in levels])

    difference = float((incremental() - reread()).abs().max())
    assert difference < 1e-5, f"the scores differ by {difference}"
    seconds = alternate({"incremental": incremental, "reread": reread}, repeats=1 if quick else 5)
    return [
        result(
            "prm_incremental",
            "transformers token classifier, every path read again",
            seconds["reread"] / seconds["incremental"],
            difference,
            TARGET,
            parameters=model.num_parameters(),
            prompt_tokens=PROMPT,
            step_tokens=STEP,
            width=WIDTH,
            branch=BRANCH,
            depth=DEPTH,
            seconds=seconds,
        )
    ]


def _model() -> Any:
    config = llama_config("16M")
    config.num_labels = 1
    return random_model(AutoModelForTokenClassification, config)


def _grown_tree() -> tuple[Tree, list[list[Node]]]:
    """A beam-like tree and its levels."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())

    tree = Tree(Problem("bench", ""), prompt_tokens=tokens(PROMPT))
    levels, frontier = [], [tree.root]
    for _ in range(DEPTH):
        count = WIDTH * BRANCH // len(frontier)
        levels.append([tree.add(node, Step(tokens(STEP), "")) for node in frontier for _ in range(count)])
        frontier = levels[-1][:: len(levels[-1]) // WIDTH]
    return tree, levels


async def _score(scorer: ProcessRewardScorer, levels: list[list[Node]]) -> None:
    for level in levels:
        await scorer.score(level)


def _reread(model: Any, nodes: list[Node]) -> torch.Tensor:
    ids = torch.tensor([node.tokens for node in nodes])
    with torch.inference_mode():
        return label_probability(model(input_ids=ids, use_cache=False).logits[:, -1])
