"""Choose tokens from logits, for many branches at once, each with random numbers of its own.

A branch's random numbers depend on its key and on how many tokens it has written, and on nothing else: not on what
runs beside it, nor on the order of work.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradatim.policies.base import Sampling


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
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    if sampling.temperature == 0:
        tokens = log_probabilities.argmax(dim=-1)
    else:
        scores = log_probabilities.double() / sampling.temperature
        if sampling.top_k and sampling.top_k < scores.shape[-1]:
            smallest = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < smallest, float("-inf"))
        if sampling.top_p < 1:
            scores = _keep_nucleus(scores, sampling.top_p)
        cumulative = scores.softmax(dim=-1).cumsum(dim=-1)
        target = torch.from_numpy(uniform).to(cumulative.device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_max(logits.shape[-1] - 1)
    return tokens, log_probabilities.gather(-1, tokens[:, None]).squeeze(-1)


def _keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Mask all but the smallest set of tokens that holds ``top_p`` of the probability (Holtzman et al., 2020)."""
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    dropped = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), float("-inf"))
