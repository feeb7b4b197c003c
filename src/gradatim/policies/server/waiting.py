"""How long to wait after a failure. Pure arithmetic on times in seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LONGEST_RETRY_AFTER = 300.0  # a server that wants more is not waited for


def backoff_seconds(attempt: int, retry_after: float | None, jitter: float) -> float:
    """How long to wait after failure number ``attempt`` (the first is 0).

    Doubles from :data:`FIRST_WAIT` up to :data:`LONGEST_WAIT`; ``jitter`` in [0, 1) takes up to half of it away, so
    that clients which failed together do not come back together. Never less than what the server asked for.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 16)) * (1.0 - jitter / 2.0)
    return wait if retry_after is None else max(wait, retry_after)


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a ``Retry-After`` header (a number or a date, RFC 9110) asks for; ``None`` if it is neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
