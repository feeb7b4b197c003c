"""Choose tokens from logits, for many branches at once, each with random numbers of its own.

A branch's random numbers depend on its key and on how many tokens it has written, and on nothing else: not on what
runs beside it, nor on the order of work.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling

_BLOCK = 64


def uniforms(keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each key and position, by SplitMix64 (Steele et al., 2014); shapes (n,)."""
    with np.errstate(over="ignore"):
        value = keys + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value = value ^ (value >> np.uint64(31))
        fraction: NDArray[np.float64] = (value >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return fraction


def choose_tokens(logits: Tensor, sampling: Sampling, uniform: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Choose one token a row.

    Args:
        logits: (rows, vocabulary).
        sampling: temperature and truncation.
        uniform: (rows,) a number in [0, 1) for each row; unused at temperature 0.

    Returns:
        The tokens (rows,) and their log-probabilities (rows,) under the untouched logits (temperature 1, nothing
        truncated).

    Raises:
        GradatimError: if the logits of a row are no numbers.
    """
    tokens, log_probabilities = _chosen(logits.float(), sampling, uniform)
    if not bool(log_probabilities.isfinite().all()):  # one NaN or infinite logit makes all of its row's so
        raise GradatimError(
            "the policy's model computed logits that are not numbers; it has diverged, or its number format is too "
            "narrow: try dtype='float32'",
            options=("dtype='float32'",),
        )
    return tokens, log_probabilities


def _chosen(logits: Tensor, sampling: Sampling, uniform: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        scores = logits if sampling.temperature == 1 else logits / sampling.temperature
        if sampling.top_k and sampling.top_k < scores.shape[-1]:
            smallest = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < smallest, float("-inf"))
        if sampling.top_p < 1:
            scores = _keep_nucleus(scores, sampling.top_p)
        probabilities = scores.softmax(dim=-1)
        tokens = _draw(probabilities, torch.from_numpy(uniform).to(scores.device)[:, None])
        if scores is logits:
            return tokens, probabilities.gather(-1, tokens[:, None]).squeeze(-1).log()
    return tokens, logits.log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)


def _draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw by inverting the cumulative distribution: (rows, vocabulary), (rows, 1) to (rows,).

    The vocabulary is cut into blocks, first a block is drawn and then a token of it, since a cumulative sum over a
    whole vocabulary takes longer than all the rest.
    """
    rows, vocabulary = probabilities.shape
    if vocabulary % _BLOCK:
        probabilities = nn.functional.pad(probabilities, (0, -vocabulary % _BLOCK))
    weights = probabilities.view(rows, -1, _BLOCK)
    sums = weights.sum(dim=-1).double()
    cumulative = sums.cumsum(dim=-1)
    target = uniform * cumulative[:, -1:]
    block = _invert(cumulative, target)
    target = target - (cumulative.gather(1, block) - sums.gather(1, block))
    within = weights.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0].double().cumsum(dim=-1)
    return (block * _BLOCK + _invert(within, target)).squeeze(-1)


def _invert(cumulative: Tensor, target: Tensor) -> Tensor:
    """For each row, the first place whose cumulative weight exceeds the target: (rows, n), (rows, 1) to (rows, 1).

    Never a place without weight, also where rounding brought the target to the sum of all.
    """
    last = (cumulative < cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)


def _keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Mask all but the smallest set of tokens that holds ``top_p`` of the probability (Holtzman et al., 2020)."""
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.double().softmax(dim=-1)
    dropped = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), float("-inf"))
