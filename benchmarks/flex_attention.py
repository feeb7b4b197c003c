"""FlexAttention over packed rows on an accelerator: gradients against masks, and time against what else reads a tree.

On an accelerator: the log-probabilities and gradients of a model by FlexAttention equal those by a mask; then the time
of a forward and backward pass over a packed tree is compared with that by a mask of the whole row, over a plain causal
row of as many tokens, over the tree's solutions in a padded batch, and by TRL's TreeRow where its kernel is installed.
On a CPU FlexAttention has no gradient: only its forward pass is compared with that by a mask, and nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import SkippedError
from gradatim.supervision.terms import Group, Term
from gradatim.training import TrainingRow, build_row
from gradatim.training.flex_attention import FLEX_ATTENTION, largest_difference
from gradatim.training.forward import token_log_probabilities
from gradatim.training.self_check import check_training
from gradatim.tree import Node, Problem, Step, Tree

VOCABULARY = 4096
SHAPES = {  # tokens of the prompt, children of each step, depth, tokens of a step
    "a chain": (512, 1, 14, 256),
    "a bushy tree": (512, 4, 3, 96),
    "a wide tree": (1024, 16, 1, 448),
}
SMALL = {"a small tree": (96, 3, 3, 12)}
REPEATS = 10


def make_model(device: torch.device, dtype: torch.dtype) -> Any:
    """A Llama of eight layers with grouped heads; on a CPU a smaller one."""
    torch.manual_seed(0)
    width, layers = (64, 2) if device.type == "cpu" else (1024, 8)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 16 if device.type == "cpu" else 16, num_key_value_heads=2,
        max_position_embeddings=1 << 15,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(device, dtype)


def make_tree(prompt: int, branch: int, depth: int, step: int) -> Tree:
    """A tree of random tokens in which every step is continued."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    tree = Tree(Problem("bench", ""), prompt_tokens=tokens(prompt))
    level: list[Node] = [tree.root]
    for _ in range(depth):
        level = [tree.add(node, Step(tokens(step), "")) for node in level for _ in range(branch)]
    return tree


def row_of(tree: Tree, device: torch.device) -> TrainingRow:
    """All steps of a tree."""
    row = build_row([Term((Group((node,)),)) for node in tree.nodes[1:]])
    return TrainingRow(**{name: each.to(device) for name, each in row.tensors().items()})


def packed_loss(model: Any, row: TrainingRow, attention: str) -> Tensor:
    """The mean log-probability of the row's tokens, read by some attention implementation."""
    model.set_attn_implementation(attention)
    return -token_log_probabilities(model, row).mean()


def causal_loss(model: Any, ids: Tensor) -> Tensor:
    """The same of a text of as many tokens, or of a padded batch of texts (padding is 0)."""
    model.set_attn_implementation("sdpa")
    logits = model(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=0)


def batch_of(tree: Tree, device: torch.device) -> Tensor:
    """The tree's solutions, (solutions, tokens), padded with 0 on the right."""
    paths = [torch.tensor(leaf.tokens) for leaf in tree.leaves()]
    return torch.nn.utils.rnn.pad_sequence(paths, batch_first=True).to(device)


def seconds(work: Callable[[], Any], model: Any, device: torch.device) -> float:
    """The median time of a forward and backward pass, after two that compile and warm up."""
    times = []
    for _ in range(REPEATS + 2):
        torch.accelerator.synchronize(device)
        started = time.perf_counter()
        work().backward()
        torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
    return statistics.median(times[2:])


def differences(model: Any, row: TrainingRow, *, gradients: bool) -> dict[str, float]:
    """The largest differences between FlexAttention and a mask: of log-probabilities, and of any weight's gradient as
    a share of the largest of that weight."""
    found = {}
    for attention in ("sdpa", FLEX_ATTENTION):
        model.set_attn_implementation(attention)
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(gradients):
            values: Any = token_log_probabilities(model, row)
        if gradients:
            values.square().sum().backward()
        found[attention] = values.detach(), [each.grad for each in model.parameters() if each.grad is not None]
    model.zero_grad(set_to_none=True)
    (dense, dense_gradients), (flex, flex_gradients) = found.values()
    result = {"log_probabilities": float((dense - flex).abs().max())}
    if gradients:
        pairs = zip(dense_gradients, flex_gradients, strict=True)
        result["gradients"] = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)
    return result


def on_cpu() -> list[dict[str, object]]:
    """The forward pass alone, over a small tree."""
    device = torch.device("cpu")
    model = make_model(device, torch.float32)
    check_training(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled, which is as it should be here
        return [
            {"what": name, "tokens": len(row.input_ids), "difference": differences(model, row, gradients=False)}
            for name, shape in SMALL.items()
            for row in [row_of(make_tree(*shape), device)]
        ]


def on_accelerator(device: torch.device, quick: bool) -> list[dict[str, object]]:
    """Differences in float32, and times in bfloat16."""
    kernels = {str(dtype): largest_difference(16, 2, 64, device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    exact = make_model(device, torch.float32)
    check_training(exact)
    report: list[dict[str, object]] = [{"what": "kernels alone", "difference": kernels}]
    for name, shape in SMALL.items():
        row = row_of(make_tree(*shape), device)
        report.append({"what": name, "difference": differences(exact, row, gradients=True)})
    model = make_model(device, torch.bfloat16)
    check_training(model)
    for name, shape in SMALL.items() if quick else SHAPES.items():
        tree = make_tree(*shape)
        row = row_of(tree, device)
        ids, batch = row.input_ids[None], batch_of(tree, device)
        works: dict[str, Callable[[], Tensor]] = {
            "flex": partial(packed_loss, model, row, FLEX_ATTENTION),
            "mask": partial(packed_loss, model, row, "sdpa"),
            "causal row": partial(causal_loss, model, ids),
            "unpacked batch": partial(causal_loss, model, batch),
        }
        if (tree_row := tree_row_loss(model, tree, device)) is not None:
            works["TRL's TreeRow"] = tree_row
        times = {side: seconds(work, model, device) for side, work in works.items()}
        report.append(
            {
                "what": name,
                "tokens": ids.shape[1],
                "reuse": round(int((batch != 0).sum()) / ids.shape[1], 2),
                "seconds": times,
                "ratios_to_flex": {side: round(time / times["flex"], 3) for side, time in times.items()},
            }
        )
    return report


def tree_row_loss(model: Any, tree: Tree, device: torch.device) -> Callable[[], Tensor] | None:
    """The same by TRL's layout and its own kernel; ``None`` where that is not installed."""
    try:
        from trl.experimental.async_grpo import packing

        from benchmarks.training_vs_tree_row import tree_row

        packing._flash_attn()
    except (SkippedError, ImportError, OSError, RuntimeError) as missing:
        print(f"TRL's TreeRow is left out: {missing}")
        return None
    packing.register_tree_attention()
    solutions = []
    for leaf in tree.leaves():
        for node in leaf.path()[1:]:
            node.step = Step(node.step.tokens, "", (0.0,) * len(node.step.tokens))
        solutions.append((leaf, 1.0))
    row = {name: each.to(device) for name, each in tree_row(solutions).items()}
    labels = row["shift_labels"]

    def loss() -> Tensor:
        model.set_attn_implementation(packing.TREE_ATTENTION)
        longest = row["tree_max_seqlens"].tolist()
        logits = model(
            input_ids=row["input_ids"][None], position_ids=row["position_ids"][None], use_cache=False,
            tree_max_seqlen_q=longest[0], tree_max_seqlen_k=longest[1],
            **{name: row[name] for name in ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")},
        ).logits[0]  # fmt: skip
        return F.cross_entropy(logits.float(), labels, ignore_index=-100)

    return loss


def main() -> None:
    """Print one object for each tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small tree only")
    options = parser.parse_args()
    device = torch.accelerator.current_accelerator()
    if device is None:
        print("no GPU here: only the forward pass is compared with that by a mask, and nothing is timed")
        report = on_cpu()
    else:
        print(f"on {device}: {torch.cuda.get_device_name() if device.type == 'cuda' else device.type}")
        report = on_accelerator(device, options.quick)
    for each in report:
        print(json.dumps(each))


if __name__ == "__main__":
    main()
