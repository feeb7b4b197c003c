"""How figures are written for people: with their intervals, or as exact counts where problems are few.

Only finite numbers are written: what has no value is said in words.
"""

from __future__ import annotations

import math

from gradatim.evaluation.bootstrap import FEW_PROBLEMS, Estimate

NOT_MEASURED = "–"
"""What stands in a table where there was nothing to measure."""


def held_out(count: int) -> str:
    """So many held-out problems."""
    return "1 held-out problem" if count == 1 else f"{count:,} held-out problems"


def intervals_note(problems: int) -> str:
    """What the figures over so many problems are followed by."""
    if problems >= FEW_PROBLEMS:
        return "% with 95 % intervals over problems"
    return f"few problems (fewer than {FEW_PROBLEMS}): exact counts, no intervals"


def share(estimate: Estimate | None, of: int | None = None) -> str:
    """A share in percent with its interval; over few problems, how many of them it is.

    Args:
        estimate: a mean over problems.
        of: what the count of few problems is of, where that is not the problems: their solutions.
    """
    if estimate is None:
        return NOT_MEASURED
    if estimate.few:
        return counted(estimate.value, estimate.n if of is None else of)
    return f"{percent(estimate.value)}{_interval(estimate, '.1f')}"


def counted(value: float, of: int) -> str:
    """A share as a count; an expectation over the subsets of samples has a decimal."""
    count = value * of
    return f"{count:,.0f} of {of:,}" if math.isclose(count, round(count), abs_tol=1e-6) else f"{count:,.1f} of {of:,}"


def points(estimate: Estimate) -> str:
    """A difference in percentage points with its interval; over few problems, how many of them it is."""
    if estimate.few:
        count = counted(abs(estimate.value), estimate.n)
        return f"{'-' if estimate.value < 0 and not count.startswith('0.0 ') else '+'}{count}"
    return f"{percent(estimate.value, '+.1f')}{_interval(estimate, '+.1f')}"


def points_in_words(estimate: Estimate) -> str:
    """A difference as part of a sentence: its interval stands behind the unit."""
    return f"{percent(estimate.value, '+.1f')} points{_interval(estimate, '+.1f')}"


def percent(value: float | None, spec: str = ".1f") -> str:
    """A share in percent, without the sign."""
    return NOT_MEASURED if value is None else _scaled(value, 100.0, spec)


def tokens(value: float | None) -> str:
    """A number of tokens for each thing that was solved."""
    return "none solved" if value is None else f"{value:,.0f}"


def number(value: float | None, spec: str = ".3f") -> str:
    """A score such as an AUC."""
    return "undefined" if value is None or not math.isfinite(value) else format(value, spec)


def number_with_interval(estimate: Estimate | None, spec: str = ".3f") -> str:
    """A score with its interval."""
    if estimate is None:
        return number(None)
    if estimate.low is None or estimate.few:
        return number(estimate.value, spec)
    return f"{format(estimate.value, spec)}{_interval(estimate, spec, scale=1.0)}"


def _interval(estimate: Estimate, spec: str, scale: float = 100.0) -> str:
    if estimate.low is None:
        return ""
    if estimate.high is None:
        return f" (from {_scaled(estimate.low, scale, spec)})"
    return f" ({_scaled(estimate.low, scale, spec)} to {_scaled(estimate.high, scale, spec)})"


def _scaled(value: float, scale: float, spec: str) -> str:
    text = format(scale * value, spec)
    return text if float(text.replace(",", "")) else format(0.0, spec)  # no "-0.0"
