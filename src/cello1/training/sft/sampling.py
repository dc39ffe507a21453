"""In which order examples are learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_POOL = 50  # batches that are sorted by length together


class LengthSampler(Sampler[int]):
    """A shuffled order in which neighbours are of like length, so that little is padding.

    The order of an epoch depends on the seed and the epoch only: a resumed run goes on in it.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        dice = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=dice).tolist()
        pool = self.batch * _POOL
        batches = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda i: -self.lengths[i])
            batches += [near[i : i + self.batch] for i in range(0, len(near), self.batch)]
        # A batch that is not full must stay the last.
        tail = [] if len(batches[-1]) == self.batch else [batches.pop()]
        for i in torch.randperm(len(batches), generator=dice).tolist():
            yield from batches[i]
        for rest in tail:
            yield from rest
