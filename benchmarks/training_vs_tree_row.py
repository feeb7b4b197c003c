"""Policy-gradient rows of trees against TRL's TreeRow, which lays the same solutions in a prefix trie.

TRL reads such rows by a kernel for accelerators (FlashAttention 3). On a CPU its place is taken here by attention
segment by segment over the keys that TRL gathers for each, which is what that kernel is asked for. Both sides compute
the same sum of losses over whole trees; losses and gradients are compared before anything is timed. Laying out the rows
is part of the time, and timed apart as well. TRL's head computes entropies too.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import SkippedError, alternate, result
from benchmarks.training_vs_trl_dpo import make_model, quiet
from benchmarks.training_vs_trl_grpo import (
    SHAPES,
    TREES,
    advantaged,
    gradients_of,
    largest_difference,
    make_trees,
    packed_backward,
    reuse,
)
from gradatim.objectives import PolicyGradient
from gradatim.supervision.terms import Group, Term
from gradatim.training import build_row
from gradatim.tree import Node

try:
    from trl.experimental.async_grpo import packing
    from trl.trainer.utils import add_fused_lm_head
except ImportError as error:
    raise SkippedError("TRL's TreeRow cannot be imported; install trl 1.16 with what its async_grpo needs") from error

NAME = "training_vs_tree_row"
PEER = "trl 1.16 TreeRow"


def segments_attention(
    query: Tensor, key: Tensor, value: Tensor, query_bounds: Tensor, key_bounds: Tensor, *_: Any,
    softmax_scale: float, **__: Any,
) -> Tensor:  # fmt: skip
    """FlashAttention's attention of segments of different lengths: (tokens, heads, size), each query sees all keys of
    its segment but those of the queries after it."""
    lengths = query_bounds.diff().tolist(), key_bounds.diff().tolist(), key_bounds.diff().tolist()
    # Split at once: slices cut one by one would each have a gradient of the size of the whole.
    parts = (torch.split(each, count) for each, count in zip((query, key, value), lengths, strict=True))
    outputs = []
    for own, seen, values in zip(*parts, strict=True):
        mask = torch.ones(len(own), len(seen), dtype=torch.bool).tril(len(seen) - len(own))
        asked, met, given = (each.transpose(0, 1)[None] for each in (own, seen, values))
        output = nn.functional.scaled_dot_product_attention(asked, met, given, mask, scale=softmax_scale)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


def tree_row_model(model: Any) -> Any:
    """The model as TRL's trainer sets it up for such rows."""
    packing.register_tree_attention()
    kernels = SimpleNamespace(flash_attn_varlen_func=segments_attention)
    setattr(packing, "_flash_attn", lambda: kernels)  # noqa: B010 (its type is that of a cached function)
    model.set_attn_implementation(packing.TREE_ATTENTION)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


def tree_row(solutions: list[tuple[Node, float]]) -> dict[str, Tensor]:
    """TRL's row of some solutions."""
    row: Any = packing.TreeRow()  # type: ignore[no-untyped-call]
    for leaf, advantage in solutions:
        prompt = len(leaf.tree.root.tokens)
        recorded = [value for node in leaf.path()[1:] for value in node.step.log_probabilities]
        row.add(
            {
                "input_ids": torch.tensor(leaf.tokens),
                "completion_mask": torch.tensor([0] * prompt + [1] * len(recorded)),
                "old_log_probs": torch.tensor([0.0] * prompt + recorded),
                "advantage": advantage,
                "group_id": leaf.tree.problem.id,
            }
        )
    packed: dict[str, Tensor] = row.pack()
    return packed


def tree_row_backward(model: Any, solutions: list[tuple[Node, float]]) -> float:
    """As TRL's trainer computes its loss; returns the loss."""
    row = tree_row(solutions)
    longest = row["tree_max_seqlens"].tolist()
    outputs = model(
        input_ids=row["input_ids"][None],
        position_ids=row["position_ids"][None],
        shift_labels=row["shift_labels"][None],
        fused_lm_head=True,
        tree_max_seqlen_q=longest[0],
        tree_max_seqlen_k=longest[1],
        **{name: row[name] for name in ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")},
    )
    ratios = (outputs.log_probs.flatten()[row["token_index"]] - row["old_log_probs"]).exp()
    advantages = row["advantages"]
    loss = -torch.min(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages).mean()
    loss.backward()
    return float(loss.detach())


def our_row(solutions: list[tuple[Node, float]]) -> object:
    """Our row of some solutions."""
    objective = PolicyGradient()
    terms = [Term((Group(tuple(leaf.path()[1:]), targets=(given,) * leaf.depth),)) for leaf, given in solutions]
    return build_row([objective.prepared(term) for term in terms])


def measure(nominal: int, *, repeats: int, trees: int | None = None) -> dict[str, object]:
    """Time both on trees of one reuse, all in one row."""
    grown = make_trees(SHAPES[nominal], min(trees or TREES[nominal], 4))
    solutions = advantaged(grown)
    model = make_model().eval()
    theirs = tree_row_model(copy.deepcopy(model))
    works: dict[str, Callable[[], float]] = {
        "packed": partial(packed_backward, model, solutions),
        "tree_row": partial(tree_row_backward, theirs, solutions),
    }
    worst = largest_difference(gradients_of(model, works["packed"]), gradients_of(theirs, works["tree_row"]))
    if worst > 1e-4:
        raise AssertionError(f"the losses or gradients differ by {worst}")
    layout: dict[str, Callable[[], object]] = {
        "packed_rows": partial(our_row, solutions),
        "tree_row_rows": partial(tree_row, solutions),
    }
    seconds = alternate({**works, **layout}, repeats)
    return result(
        NAME, PEER, seconds["tree_row"] / seconds["packed"], worst, 1.0, reuse=round(reuse(grown), 2),
        nominal_reuse=nominal, solutions=len(solutions), tokens=sum(len(tree_tokens) for tree_tokens in _tokens(grown)),
        rows_per_second={side: round(1 / seconds[side], 3) for side in works}, seconds=seconds,
    )  # fmt: skip


def _tokens(trees: list[Any]) -> list[list[int]]:
    return [[token for node in tree.nodes for token in node.step.tokens] for tree in trees]


def run(quick: bool = False) -> list[dict[str, object]]:
    """Measure at reuse 1, 2, 4, 8 and 16 (quick: 1 and 4, once)."""
    quiet()
    if quick:
        return [measure(nominal, repeats=1, trees=1) for nominal in (1, 4)]
    return [measure(nominal, repeats=5) for nominal in SHAPES]


def main() -> None:
    """Print one object for each reuse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for each in run(parser.parse_args().quick):
        print(json.dumps(each))


if __name__ == "__main__":
    main()
