"""FlexAttention over packed rows: one compiled kernel, which skips all blocks in which no token sees another.

FlexAttention (Dong et al., "Flex Attention: A Programming Model for Generating Optimized Attention Kernels", 2024,
arXiv:2412.05496) compiles a kernel from a function that says whether a query sees a key, and leaves out the blocks of a
*block mask*. Which blocks of a packed row see one another follows from a number for each token, the end of what may see
it, so the block mask is made of ``T / 128`` numbers instead of ``T * T`` pairs; only where a layer has a window or a
chunk are pairs looked at, in the blocks that the tree leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flex_attention_mask

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern, Uncut
from gradatim.engine.tree_attention import refuse_unknown
from gradatim.engine.tree_row import TreeRow
from gradatim.errors import GradatimError
from gradatim.training.packing import pack_row
from gradatim.training.row_masks import row_mask
from gradatim.tree import Problem, Step, Tree

FLEX_ATTENTION = "gradatim_tree_flex"  # the name under which transformers knows it
_BLOCK = 128  # tokens in a block, as many as FlexAttention's own masks have
_PAIRS = 1 << 26  # pairs of tokens that are looked at together
_KERNELS = (
    64  # kernels that may be compiled: for each pattern, soft cap, type and shape of heads, with gradient and not
)


class TreeBlockMask(Uncut):
    """The block mask of a packed row; it is no :class:`BlockMask`, so that no model takes a part of it.

    Args:
        row: the row.
        pattern: the layer's.
        mask: (1, 1, T, T).
    """

    def __init__(self, row: TreeRow, pattern: AttentionPattern, mask: BlockMask) -> None:
        self.mask = mask
        self._row, self._pattern = row, pattern

    @cached_property
    def whole(self) -> Tensor:
        """(1, 1, T, T), true where a token is seen."""
        return self._row.sees(self._pattern, self._row.places, self._row.places)[None, None]


def tree_block_mask(row: TreeRow, pattern: AttentionPattern) -> TreeBlockMask:
    """Which blocks of a row see one another, wholly or in part, and the exact mask within those seen in part.

    A block of queries sees some token of an earlier block exactly when its first query comes before the latest end of
    what those tokens may be seen by, and all of it when its last query comes before the earliest end.
    """
    length = len(row.places)
    count = -(-length // _BLOCK)
    ends = nn.functional.pad(row.visible_until, (0, count * _BLOCK - length)).view(count, _BLOCK)
    starts = torch.arange(count, device=ends.device) * _BLOCK
    before = starts[:, None] > starts
    met = (before & (ends.amax(dim=1) > starts[:, None])) | (starts[:, None] == starts)
    whole = before & (ends.amin(dim=1) >= starts[:, None] + _BLOCK)
    if pattern is not EVERYTHING:
        met, whole = _narrowed(row, pattern, met)
    mask = BlockMask.from_kv_blocks(
        *_listed(met & ~whole),
        *_listed(whole),
        BLOCK_SIZE=_BLOCK,
        mask_mod=_mask_function(row, pattern),
        seq_lengths=(length, length),
    )
    return TreeBlockMask(row, pattern, mask)


def _narrowed(row: TreeRow, pattern: AttentionPattern, met: Tensor) -> tuple[Tensor, Tensor]:
    """Of the blocks (n, n) that see one another in the tree: which do so under a pattern, and which of them wholly."""
    pairs = met.nonzero()
    some, all_of = torch.zeros_like(met), torch.zeros_like(met)
    within = torch.arange(_BLOCK, device=met.device)
    for part in torch.split(pairs, _PAIRS // _BLOCK**2):
        queries, keys = (part[:, side, None] * _BLOCK + within for side in (0, 1))
        last = len(row.places) - 1  # behind it nothing sees and is seen, as FlexAttention takes it
        seen = row.sees(pattern, queries.clamp(max=last), keys.clamp(max=last))
        seen &= (queries <= last)[:, :, None] & (keys <= last)[:, None, :]
        some[part[:, 0], part[:, 1]] = seen.any(dim=2).any(dim=1)
        all_of[part[:, 0], part[:, 1]] = seen.all(dim=2).all(dim=1)
    return some, all_of


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries sees, (1, 1, n), and which, those first: (1, 1, n, n)."""
    order = blocks.int().argsort(dim=1, descending=True, stable=True)
    return blocks.sum(dim=1).int()[None, None], order.int()[None, None]


def _mask_function(row: TreeRow, pattern: AttentionPattern) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether a query sees a key, as FlexAttention asks it: batch, head, and their places in the row."""
    visible_until, positions, function = row.visible_until, row.positions, pattern.function

    def on_path(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < visible_until[key])

    if function is None:
        return on_path

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return on_path(batch, head, query, key) & function(batch, head, positions[query], positions[key])

    return seen


def tree_flex_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sinks: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed row.

    A sink is one more score for each head, which takes a share of the weight and has no value: with the logarithm
    ``l`` of a query's summed weights, a sink ``s`` leaves ``sigmoid(l - s)`` of its output.

    Args:
        module: the attention layer.
        query: (1, heads, T, head size).
        key: (1, key-value heads, T, head size).
        value: as ``key``, or of another size.
        attention_mask: the row's block mask; or transformers' own where the model reads something else.
        scaling: factor of the dot products; by default that of the head size.
        dropout: of the weights, which FlexAttention does not know: while there is any, a mask of the whole row is used.
        softcap: scores are squashed to within this by tanh, where given (Gemma 2).
        s_aux, sinks: (heads,), where given (gpt-oss); models call them by either name.
        options: anything else that a model hands over; what would change the result is refused.

    Returns:
        (1, T, heads, size of the values), and no attention weights.

    Raises:
        GradatimError: if the model asks for something that is not known here.
    """
    sinks = s_aux if sinks is None else sinks
    if not isinstance(attention_mask, TreeBlockMask):
        options |= {"scaling": scaling, "dropout": dropout, "softcap": softcap, "s_aux": sinks}
        return flex_attention_forward(module, query, key, value, attention_mask, **options)[0], None
    if dropout and softcap is None and sinks is None:
        options |= {"scaling": scaling, "dropout": dropout, "is_causal": False}
        return sdpa_attention_forward(module, query, key, value, attention_mask.whole, **options)[0], None
    refuse_unknown(options, dropout)
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions may be of a higher precision
    given: dict[str, Any] = {
        "score_mod": None if softcap is None else _squashed(softcap),
        "block_mask": attention_mask.mask,
        "scale": scaling,
        "enable_gqa": query.shape[1] != key.shape[1],
        "kernel_options": {"FORCE_USE_FLEX_ATTENTION": True},  # one kernel for short rows and long ones
    }
    if sinks is None:
        output = _attend(query, key, value, given)
    else:
        output, sums = _attend_with_sums(query, key, value, given)
        share = torch.sigmoid(sums - sinks.to(sums)[None, :, None])
        output = (output * share[..., None]).to(value.dtype)
    return output.transpose(1, 2).contiguous(), None


def _squashed(softcap: float) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    def squash(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return squash


def _attend_with_sums(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of the summed weights (1, heads, T)."""
    from torch.nn.attention.flex_attention import AuxRequest  # since PyTorch 2.9; without it sinks are refused

    output, more = _attend(query, key, value, given | {"return_aux": AuxRequest(lse=True)})
    return output, more.lse


def _attend(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any]) -> Any:
    run: Any = flex_attention if query.device.type == "cpu" else _compiled()
    return run(query, key, value, **given)


@cache
def _compiled() -> Callable[..., Any]:
    """FlexAttention's kernels for rows of any length."""
    run: Callable[..., Any] = torch.compile(flex_attention, dynamic=True, fullgraph=True)

    def attend(*inputs: Tensor, **given: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=_KERNELS):
            return run(*inputs, **given)

    return attend


def check_flex_attention(config: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Check outputs and gradients of the kernels on this machine against attention by a mask, over a small tree of
    several blocks, for heads of the shape that a model has. Equal ones are not checked again.

    Raises:
        GradatimError: if the kernels fail or compute something else.
    """
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    fault = _fault(heads, int(getattr(text, "num_key_value_heads", None) or heads), size, device, dtype)
    if fault is not None:
        raise GradatimError(f"FlexAttention cannot be used here: {fault}")


@cache
def _fault(heads: int, key_heads: int, size: int, device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        difference = largest_difference(heads, key_heads, size, device, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler raises
        return f"it fails with {type(error).__name__}"
    coarse = torch.finfo(dtype).eps > 1e-5
    return None if difference <= (0.05 if coarse else 2e-3) else f"its results differ by {difference:.2g}"


def largest_difference(heads: int, key_heads: int, size: int, device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference of the kernels' outputs and gradients over a small tree from those of attention by a mask,
    as a share of the largest value of each."""
    tree = Tree(Problem("flex-check", ""), prompt_tokens=[0] * 140)
    for child in [tree.add(tree.root, Step((number,) * 60, "")) for number in range(3)]:
        for number in range(2):
            tree.add(child, Step((number,) * 30, ""))
    packed = pack_row(tree.nodes)
    row = TreeRow(packed.position_ids.to(device), packed.visible_until.to(device))
    generator = torch.Generator().manual_seed(0)
    query, key, value, weights = (
        torch.randn(1, count, len(packed), size, generator=generator).to(device, dtype)
        for count in (heads, key_heads, key_heads, heads)
    )
    inputs = [each.requires_grad_() for each in (query, key, value)]
    results = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        ours = tree_flex_attention(nn.Module(), query, key, value, tree_block_mask(row, EVERYTHING))[0].transpose(1, 2)
        keys, values = (each.repeat_interleave(heads // key_heads, dim=1) for each in (key, value))
        mask = row.sees(EVERYTHING, row.places, row.places)
        dense = nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        for output in (ours, dense):
            gradients = torch.autograd.grad((output * weights).sum(), inputs)
            results.append([each.float() for each in (output.detach(), *gradients)])
    differences = [(one - other).abs().max() / other.abs().max() for one, other in zip(*results, strict=True)]
    return float(torch.stack(differences).max())


AttentionInterface.register(FLEX_ATTENTION, tree_flex_attention)
AttentionMaskInterface.register(
    FLEX_ATTENTION, row_mask(flex_attention_mask, lambda masks, pattern, _: tree_block_mask(masks, pattern))
)
