"""Windows of a reference as model input: uint8 ids and a loss weight per base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from genomamba.data.reference import Reference
from genomamba.data.windows import RandomWindows
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval


class Window(NamedTuple):
    interval: Interval
    ids: np.ndarray  # (L,), uint8
    weight: np.ndarray  # (L,), fp32: what predicting this base counts; 0 for N


class Batch(NamedTuple):
    """Windows side by side, right-padded."""

    ids: Tensor  # (B, L), uint8
    weight: Tensor  # (B, L), fp32; 0 for N and padding
    where: list[str]  # the windows, for messages


class WindowReader:
    """Interval → Window."""

    def __init__(self, reference: Reference, softmask_weight: float) -> None:
        self.reference, self.softmask_weight = reference, softmask_weight

    def __call__(self, interval: Interval) -> Window:
        ids = self.reference.ids(interval)
        weight = np.where(self.reference.softmask(interval), np.float32(self.softmask_weight), np.float32(1))
        weight[(ids < alphabet.A) | (ids > alphabet.T)] = 0
        return Window(interval, ids, weight)


class SampleKey(NamedTuple):
    epoch: int
    sample: int


class TrainingWindows(Dataset[Window]):
    """Random windows, by (epoch, sample)."""

    def __init__(self, windows: RandomWindows, reader: WindowReader) -> None:
        self.windows, self.reader = windows, reader

    def __getitem__(self, key: SampleKey) -> Window:
        return self.reader(self.windows(key.epoch, key.sample))


class FixedWindows(Dataset[Window]):
    """Given intervals, in order."""

    def __init__(self, intervals: Sequence[Interval], reader: WindowReader) -> None:
        self.intervals, self.reader = intervals, reader

    def __len__(self) -> int:
        return len(self.intervals)

    def __getitem__(self, index: int) -> Window:
        return self.reader(self.intervals[index])


class KeySampler(Sampler[SampleKey]):
    """The keys of one epoch: (epoch, 0), (epoch, 1), …, or in an order that depends on (seed, epoch) alone."""

    def __init__(self, size: int, *, shuffle_seed: int | None = None) -> None:
        self.size, self.shuffle_seed, self.epoch = size, shuffle_seed, 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleKey]:
        order = range(self.size) if self.shuffle_seed is None else self._permutation(self.shuffle_seed)
        return (SampleKey(self.epoch, int(index)) for index in order)

    def _permutation(self, seed: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=seed, counter=[0, 2, self.epoch, 0])).permutation(self.size)


class RunSampler(Sampler[SampleKey]):
    """The keys of a whole run in order, from any place on: sample n is number n mod E of epoch n div E.

    Args:
        total: samples of the run.
        per_epoch: samples of an epoch, E.
        start: the first one wanted.
    """

    def __init__(self, total: int, per_epoch: int, start: int = 0) -> None:
        self.total, self.per_epoch, self.start = total, per_epoch, start

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(*divmod(number, self.per_epoch)) for number in range(self.start, self.total))


def collate(windows: Sequence[Window]) -> Batch:
    """Right-pads to the longest."""
    length = max(window.ids.size for window in windows)
    ids = np.full((len(windows), length), alphabet.PAD, dtype=np.uint8)
    weight = np.zeros((len(windows), length), dtype=np.float32)
    for row, window in enumerate(windows):
        ids[row, : window.ids.size] = window.ids
        weight[row, : window.weight.size] = window.weight
    return Batch(torch.from_numpy(ids), torch.from_numpy(weight), [str(window.interval) for window in windows])
