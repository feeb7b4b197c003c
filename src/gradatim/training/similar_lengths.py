"""Batches of rows of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_BATCHES_SORTED = 16  # at once: batches stay random but for the length of their rows


class SimilarLengthSampler(Sampler[int]):
    """All rows in random order, but such that each batch in a row holds rows of similar length.

    The rows are shuffled, each run of some batches is sorted by length, and the batches are shuffled again: otherwise
    the lengths would go up and down with the updates, and what is learned with them. Shuffles by the seed that torch
    was given last and the number of the epoch.

    Args:
        lengths: of the rows, in tokens.
        batch_size: rows of a batch; only the last batch has fewer.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = torch.random.initial_seed()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        self.epoch += 1
        order = torch.randperm(len(self.lengths), generator=generator)
        whole = len(order) - len(order) % self.batch_size
        runs = torch.split(order[:whole], self.batch_size * _BATCHES_SORTED)
        batches = torch.cat([run[self.lengths[run].argsort()] for run in runs]).view(-1, self.batch_size)
        yield from batches[torch.randperm(len(batches), generator=generator)].flatten().tolist()
        yield from order[whole:].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Shuffle as in this epoch."""
        self.epoch = epoch
