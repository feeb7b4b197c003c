"""Resampling: weighted particles become equally weighted ones, by copying the heavy and dropping the light.

Every scheme is unbiased: a particle is expected to have as many copies as its share of the weight is of their number.
They differ in how far the copies stray from that (Douc and Cappé, 2005, arXiv:cs/0507025).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Literal

Scheme = Literal["multinomial", "stratified", "systematic", "residual"]
"""How copies are drawn; see :func:`resample`."""


def resample(weights: Sequence[float], count: int, scheme: Scheme, generator: random.Random) -> list[int]:
    """How many copies each of some weighted particles has among ``count`` new ones.

    With points on a line of length 1, on which each particle has its share of the weight:

    - ``"multinomial"``: every point anywhere;
    - ``"stratified"``: one point anywhere in each of ``count`` equal parts;
    - ``"systematic"``: the same place in each part, so that copies are the expected number rounded down or up;
    - ``"residual"``: the expected number rounded down, and what is left over by the first scheme.

    Args:
        weights: not negative, and of a positive, finite sum.
        count: copies in all.
        scheme: how they are drawn.
        generator: where random numbers come from.

    Returns:
        ``[weights]``, with the sum ``count``.

    Raises:
        ValueError: if the weights make no sense.
    """
    total = math.fsum(weights)
    if not 0 < total < math.inf or min(weights) < 0:
        raise ValueError(f"weights must not be negative and have a positive, finite sum, got {list(weights)}")
    if scheme == "residual":
        expected = [count * weight / total for weight in weights]
        sure = [math.floor(number + 1e-9) for number in expected]  # a whole number stays whole
        left = [max(0.0, number - copies) for number, copies in zip(expected, sure, strict=True)]
        rest = count - sum(sure)
        more = resample(left, rest, "multinomial", generator) if rest > 0 else [0] * len(sure)
        return [copies + extra for copies, extra in zip(sure, more, strict=True)]
    if scheme == "multinomial":
        points = sorted(generator.random() for _ in range(count))
    elif scheme == "stratified":
        points = [(place + generator.random()) / count for place in range(count)]
    else:
        offset = generator.random()
        points = [(place + offset) / count for place in range(count)]
    return _copies(weights, [point * total for point in points])


def _copies(weights: Sequence[float], points: Sequence[float]) -> list[int]:
    """How many of ascending points fall on each weight's part of the line."""
    last = max(place for place, weight in enumerate(weights) if weight > 0)  # where rounding puts a point at the end
    copies = [0] * len(weights)
    ends = list(itertools.accumulate(weights))
    place = 0
    for point in points:
        while place < last and point >= ends[place]:
            place += 1
        copies[place] += 1
    return copies


def effective_size(weights: Sequence[float]) -> float:
    """How many equally weighted particles would be as good: ``(sum of w)^2 / (sum of w^2)`` (Kong et al., 1994)."""
    largest = max(weights)
    scaled = [weight / largest for weight in weights]  # so that squares do not vanish
    return math.fsum(scaled) ** 2 / math.fsum(weight**2 for weight in scaled)
