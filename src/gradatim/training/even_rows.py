"""The same number of rows for every process, where several share the work: what is missing is rows of no weight.

Otherwise the last process would be given a row that another one has learned from, and the loss of an update would be
another than that of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.utils.data import RandomSampler, Sampler

from gradatim.training.rows import TrainingRow


def evened(rows: list[TrainingRow], processes: int) -> list[TrainingRow]:
    """The rows, and behind them as many of no weight as make their number a multiple of ``processes``."""
    missing = -len(rows) % processes
    return [*rows, *[replace(rows[-1], weight=torch.zeros_like(rows[-1].weight))] * missing] if rows else rows


class EvenSampler(Sampler[int]):
    """The rows in the order in which one process would take them, and then those of no weight.

    As the sampler that ``accelerate`` gives one process, it shuffles by the seed that torch was given last and the
    number of the epoch. It asks for that number: who is told of it depends on what is laid around a sampler, and where
    training goes on within an epoch, this one is not.

    Args:
        rows: how many rows have a weight; they are the first of the data set.
        total: how many there are in all.
        epoch: says which epoch it is, from 0.
    """

    def __init__(self, rows: int, total: int, epoch: Callable[[], int]) -> None:
        self.generator = torch.Generator()
        self.rows = RandomSampler(range(rows), generator=self.generator)
        self.total = total
        self.seed = torch.random.initial_seed()
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        yield from self.rows
        yield from range(len(self.rows), self.total)
