"""Log-probabilities over a vocabulary of 150,000 words: part by part against all logits at once."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from functools import partial
from typing import Any
from unittest.mock import patch

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import THREADS, alternate, result
from gradatim.supervision.terms import Group, Term
from gradatim.training import TrainingRow, build_row
from gradatim.training.forward import token_log_probabilities
from gradatim.training.log_probabilities import predictions_at_once
from gradatim.training.self_check import check_training
from gradatim.tree import Problem, Step, Tree

NAME = "large_vocabulary"
VOCABULARY = 150_000
PROMPT, STEPS, STEP = 64, 32, 64
TARGET = 0.8  # at most a quarter more time; the gain is memory


def make_model() -> Any:
    """A Llama of four layers, most of whose 42 million parameters are the tied embeddings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    check_training(model)
    return model


def make_row(steps: int) -> TrainingRow:
    """Steps of one prompt, each token of which is predicted."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    tree = Tree(Problem("bench", ""), prompt_tokens=tokens(PROMPT))
    return build_row([Term((Group((tree.add(tree.root, Step(tokens(STEP), "")),)),)) for _ in range(steps)])


def backward(model: Any, row: TrainingRow, *, whole: bool) -> torch.Tensor:
    """One forward and backward pass; the log-probabilities."""
    chosen = (lambda _: None) if whole else predictions_at_once
    with patch("gradatim.training.forward.predictions_at_once", chosen):
        values: Any = token_log_probabilities(model, row)
    values.sum().backward()
    found: torch.Tensor = values.detach()
    return found


def peak_memory(side: str, steps: int) -> float:
    """Megabytes by which such a pass raises the peak of a fresh process."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--measure-memory", side, str(steps)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1])


def _measure_memory(side: str, steps: int) -> float:
    model, row = make_model(), make_row(steps)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = psutil.Process().memory_info().rss
    backward(model, row, whole=side == "whole")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def run(quick: bool = False) -> list[dict[str, object]]:
    """Time and memory at half a row and a whole one (quick: an eighth of a row)."""
    torch.set_num_threads(THREADS)
    model = make_model()
    results = []
    for steps in (STEPS // 4,) if quick else (STEPS // 2, STEPS):
        row = make_row(steps)
        sides = {side: partial(backward, model, row, whole=side == "whole") for side in ("parts", "whole")}
        difference = float((sides["parts"]() - sides["whole"]()).abs().max())
        seconds = alternate(dict(sides), 1 if quick else 3)
        memory = {f"{side}_memory_mb": round(peak_memory(side, steps), 1) for side in sides}
        results.append(
            result(
                NAME, "all logits at once", seconds["whole"] / seconds["parts"], difference, TARGET,
                what=f"{len(row.predictors)} predictions, {predictions_at_once(model)} at once", seconds=seconds,
                **memory,
            )
        )  # fmt: skip
    return results


def main() -> None:
    """Print one object for each length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure-memory", nargs=2, metavar=("SIDE", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        print(_measure_memory(options.measure_memory[0], int(options.measure_memory[1])))
        return
    for each in run(options.quick):
        print(json.dumps(each))


if __name__ == "__main__":
    main()
