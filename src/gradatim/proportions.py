"""What samples say of a share: the interval that it lies in, and the chance that one of several is right."""

from __future__ import annotations

import math
from statistics import NormalDist

from gradatim.errors import GradatimError

DISTINCT, TOKENS, PASS = "distinct", "tokens", "pass@"
"""What policies are measured by: distinct solutions among a problem's samples, tokens of one, and how pass@k begins."""


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Wilson (1927) of a share that was seen in ``count`` independent trials; 0 to 1 without any.

    Raises:
        GradatimError: if it is no share.
    """
    if not 0.0 <= share <= 1.0:
        raise GradatimError(f"{share} is no share from 0 to 1, so it has no interval; use values that are shares")
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    spread = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    centre, scale = share + z**2 / (2 * count), 1 + z**2 / count
    low, high = max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)
    return min(low, share), max(high, share)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of ``k`` solutions drawn without replacement from ``n`` is among the ``correct``.

    The unbiased estimator of Chen et al. (2021, arXiv:2107.03374), ``1 - C(n - correct, k) / C(n, k)``, as a product
    that neither overflows nor cancels. For ``n`` independent samples of which each is right with probability ``p``, its
    mean is ``1 - (1 - p) ** k``.

    Raises:
        GradatimError: unless ``1 <= k <= n`` and ``0 <= correct <= n``.
    """
    check_subset(n, k)
    if not 0 <= correct <= n:
        raise GradatimError(f"{correct} correct solutions of {n} are impossible; count each solution once")
    if n - correct < k:
        return 1.0
    return 0.0 - math.expm1(sum(math.log1p(-k / i) for i in range(n - correct + 1, n + 1)))


def check_subset(total: int, n: int) -> None:
    """See that ``n`` of ``total`` samples can be chosen.

    Raises:
        GradatimError: if they cannot.
    """
    if not 1 <= n <= total:
        raise GradatimError(
            f"cannot choose {n} of {total} sampled solutions; sample at least that many, and at least 1"
        )
