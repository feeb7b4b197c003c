"""Reading many whole trees offline: a reader against packed rows made by hand and the trainer's forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from benchmarks.measure import THREADS, VOCABULARY, alternate, llama_config, random_model, result
from gradatim.engine.reader import SCORE, Reader
from gradatim.supervision.terms import Group, Term
from gradatim.training import TrainingRow, build_row, plan_rows
from gradatim.training.forward import step_logits, token_log_probabilities
from gradatim.training.self_check import blockwise_attention
from gradatim.tree import Node, Problem, Step, Tree

PROMPT, STEP, BRANCH, DEPTH = 96, 16, 3, 3
ROW = 2048
TARGET = 1.0


def run(quick: bool = False) -> list[dict[str, object]]:
    """Scores of every step, and log-probabilities of every token, of trees that are there already. The peer is the
    quickest way that does without the reader: the trees in rows of a fixed length, read as the trainer reads them."""
    torch.set_num_threads(THREADS)
    trees = [_tree(seed) for seed in range(8 if quick else 24)]
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    repeats = 2 if quick else 5
    return [
        _compare("scores", AutoModelForTokenClassification, _score_rows, _score_reader, nodes, repeats),
        _compare("log-probabilities", AutoModelForCausalLM, _likelihood_rows, _likelihood_reader, nodes, repeats),
    ]


def _compare(
    what: str,
    auto_class: Any,
    by_rows: Callable[[Any, list[Node]], torch.Tensor],
    by_reader: Callable[[Reader, list[Node]], torch.Tensor],
    nodes: list[Node],
    repeats: int,
) -> dict[str, object]:
    model, reader = _model(auto_class), Reader(_model(auto_class))
    difference = float((by_rows(model, nodes) - by_reader(reader, nodes)).abs().max())
    assert difference < 1e-4, f"the {what} differ by {difference}"
    works: dict[str, Callable[[], object]] = {
        "rows": lambda: by_rows(model, nodes),
        "reader": lambda: by_reader(reader, nodes),
    }
    seconds = alternate(works, repeats)
    return result(
        "reader_vs_rows",
        "packed rows by hand",
        seconds["rows"] / seconds["reader"],
        difference,
        TARGET,
        what=what,
        parameters=model.num_parameters(),
        trees=len({id(node.tree) for node in nodes}),
        steps=len(nodes),
        prompt_tokens=PROMPT,
        step_tokens=STEP,
        tokens_per_row=ROW,
        seconds=seconds,
    )


def _model(auto_class: Any) -> Any:
    config = llama_config("16M")
    config.num_labels = 1
    return random_model(auto_class, config)


def _tree(seed: int) -> Tree:
    """A tree in which every step has three continuations, three steps deep."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())

    tree = Tree(Problem(f"bench {seed}", ""), prompt_tokens=tokens(PROMPT))
    level = [tree.root]
    for _ in range(DEPTH):
        level = [tree.add(node, Step(tokens(STEP), "")) for node in level for _ in range(BRANCH)]
    return tree


def _by_rows(model: Any, nodes: list[Node], measure: Callable[[Any, TrainingRow], torch.Tensor]) -> torch.Tensor:
    """What ``measure`` gives for each node, in order."""
    terms = [Term((Group((node,)),)) for node in nodes]
    found: dict[Node, torch.Tensor] = {}
    with torch.inference_mode(), blockwise_attention(model):
        for part in plan_rows(terms, ROW, seed=None):
            row = build_row(part)
            sizes = row.lengths.tolist() if measure is token_log_probabilities else [1] * len(part)
            values = torch.split(measure(model, row), sizes)
            found.update((term.ends[0], value) for term, value in zip(part, values, strict=True))
    return torch.cat([found[node] for node in nodes])


def _score_rows(model: Any, nodes: list[Node]) -> torch.Tensor:
    return _by_rows(model, nodes, step_logits)


def _likelihood_rows(model: Any, nodes: list[Node]) -> torch.Tensor:
    return _by_rows(model, nodes, token_log_probabilities)


def _score_reader(reader: Reader, nodes: list[Node]) -> torch.Tensor:
    readings = asyncio.run(reader.read(nodes, heads=[SCORE], keep=False))
    return torch.cat([reading.heads[SCORE] for reading in readings if reading is not None])


def _likelihood_reader(reader: Reader, nodes: list[Node]) -> torch.Tensor:
    readings = asyncio.run(reader.read(nodes, log_probabilities=True, keep=False))
    return torch.tensor([value for reading in readings if reading for value in reading.log_probabilities or ()])
