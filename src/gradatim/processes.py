"""Which process this is of several that one command started (``torchrun``, ``accelerate launch``)."""

from __future__ import annotations

import os

GRACE = 30.0
"""Seconds in which the first process may say what is wrong in all of them, before another one does."""


def process_count() -> int:
    """How many processes there are; 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def is_first() -> bool:
    """Whether this is the first process: the one that searches, measures, writes and speaks."""
    return process_number() == 0
