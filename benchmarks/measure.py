"""What all benchmarks share: the models, alternating timing, and the form of a result."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, PreTrainedTokenizerFast

from gradatim.tree import Node, Problem, Tree

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
BY_CPU = os.environ.get("BENCH_CLOCK") == "cpu"  # what a machine that others use, too, can tell of one thread
VOCABULARY = 4096
END = 1
LINE_END = 3


class SkippedError(Exception):
    """A benchmark cannot run here; the message is one sentence that says what it needs."""


def llama_config(size: str) -> LlamaConfig:
    """``"16M"`` or ``"2M"`` parameters (input embeddings, tied to the output, included)."""
    hidden, layers, vocabulary = {"16M": (384, 8, VOCABULARY), "2M": (192, 4, 512)}[size]
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=END,
    )


def random_model(auto_class: Any, config: LlamaConfig) -> Any:
    """A model with seeded random weights, in evaluation mode."""
    torch.manual_seed(0)
    return auto_class.from_config(config, attn_implementation="sdpa").eval()


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a word: ``<pad>``, ``<eos>``, ``<unk>``, a line end, and then numbers."""
    words = ["<pad>", "<eos>", "<unk>", "\n", *(f" {number}" for number in range(4, vocabulary))]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r" ?[^\s]+|\n"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def teacher_forced_difference(model: Any, node: Node) -> float:
    """The largest difference between a node's recorded log-probabilities and those of its path read at once."""
    assert node.parent is not None, "the root has no log-probabilities"
    before = node.parent.tokens
    ids = torch.tensor([[*before, *node.step.tokens]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(before) - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, ids[0, len(before) :, None])[:, 0]
    return float((expected - torch.tensor(node.step.log_probabilities)).abs().max())


def random_trees(problems: int, prompt_tokens: int, seed: int = 0) -> list[Tree]:
    """Trees with prompts of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(4, 500, (problems, prompt_tokens), generator=generator).tolist()
    return [Tree(Problem(str(number), ""), seed=seed, prompt_tokens=prompt) for number, prompt in enumerate(prompts)]


def alternate(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each work. They take turns, so that whatever else the machine does meets all of them; the
    first round warms up and is not counted. With ``BENCH_CLOCK=cpu`` the process's own time on a processor counts."""
    clock = time.process_time if BY_CPU else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            started = clock()
            work()
            if repeat:
                seconds[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def result(
    name: str, peer: str, ratio: float, max_difference: float, target: float, **settings: object
) -> dict[str, object]:
    """One object of the report. ``ratio`` is the peer's time over ours unless the settings say otherwise."""
    return {
        "name": name,
        "peer": peer,
        "ratio": round(ratio, 4),
        "max_difference": max_difference,
        "settings": {"target": target, "threads": torch.get_num_threads(), "cpu_time": BY_CPU, **settings},
    }
