"""Step scores that anybody can have: what a scorer must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradatim.evaluation.step_records import StepRecord


def random_scores(records: Sequence[StepRecord], seed: int = 0) -> list[list[float]]:
    """Uniform between 0 and 1."""
    generator = np.random.default_rng(seed)
    return [generator.random(len(record.steps)).tolist() for record in records]


def constant_scores(records: Sequence[StepRecord]) -> list[list[float]]:
    """1 for every step: nothing is ever wrong, and all solutions are equal."""
    return [[1.0] * len(record.steps) for record in records]


def fewer_steps_scores(records: Sequence[StepRecord]) -> list[list[float]]:
    """The same for every step of a solution, lower the more steps it has: short solutions are trusted."""
    return [[1 / (1 + len(record.steps))] * len(record.steps) for record in records]


def length_scores(records: Sequence[StepRecord]) -> list[list[float]]:
    """The share of all steps of the benchmark that are at least as long (in characters): shorter steps are trusted.

    At a threshold of 0.5 the longer half of the steps is called wrong.
    """
    lengths = np.sort([len(step) for record in records for step in record.steps])
    return [
        (1 - np.searchsorted(lengths, [len(step) for step in record.steps]) / len(lengths)).tolist()
        for record in records
    ]
