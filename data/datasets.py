"""Windows of a reference as model input: uint8 ids and a loss weight per base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from genomamba.data.references import Genome
from genomamba.data.windows import RandomWindows
from genomamba.errors import RegionError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

UNIQUE, SOFT_MASKED = 1, 2
_A, _BASES = np.array(alphabet.A, dtype=np.uint8), np.array(len(alphabet.BASES), dtype=np.uint8)


class Window(NamedTuple):
    """One row: one piece of sequence or several, one after the other."""

    pieces: list[Interval]
    ids: np.ndarray  # (L,), uint8
    weight: np.ndarray  # (L,), fp32: what predicting this base counts; 0 for N and the first base of each later piece
    starts: list[int]  # where each piece begins
    rejected: int = 0  # rows drawn before this one that had too many N
    stratum: np.ndarray | None = None  # (L,), uint8: UNIQUE or SOFT_MASKED at bases, 0 at all else; for validation
    group: int = 0  # which contig of the validation split


class Batch(NamedTuple):
    """Windows side by side, right-padded."""

    ids: Tensor  # (B, L), uint8
    weight: Tensor  # (B, L), fp32; 0 for N, padding, and the first base of each packed piece
    where: list[str]  # the windows, for messages
    reset: Tensor | None = None  # (B, L), bool: the first token of each packed piece; None when nothing is packed
    rejected: int = 0  # windows passed over for their N's
    stratum: Tensor | None = None  # (B, L), uint8, and
    group: Tensor | None = None  # (B,): as of each window; None in training

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``; from pinned memory, without waiting."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; the loader calls this where there is a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        fields = ("ids", "weight", "reset", "stratum", "group")
        given = {name: tensor for name in fields if (tensor := getattr(self, name)) is not None}
        return Batch(**{**self._asdict(), **{name: move(tensor) for name, tensor in given.items()}})


class WindowReader:
    """Intervals → Window."""

    def __init__(self, reference: Genome, softmask_weight: float) -> None:
        self.reference, self.softmask_weight = reference, softmask_weight
        self._of_case = np.array([1, softmask_weight], dtype=np.float32)

    def __call__(self, *pieces: Interval) -> Window:
        if len(pieces) == 1:
            return Window(list(pieces), *self._piece(*pieces), [0])
        read = [self._piece(piece) for piece in pieces]
        ids, weight = (np.concatenate(parts) for parts in zip(*read, strict=True))
        starts = np.cumsum([0, *(piece.length for piece in pieces[:-1])]).tolist()
        weight[starts[1:]] = 0  # nothing before it may predict the first base of another piece
        return Window(list(pieces), ids, weight, starts)

    def stratum(self, piece: Interval, window: Window) -> np.ndarray:
        """(L,): SOFT_MASKED where the file has a lower-case base, UNIQUE at other bases, 0 elsewhere."""
        masked = self.reference.softmask(piece)
        return np.where(np.less(window.ids - _A, _BASES), np.where(masked, SOFT_MASKED, UNIQUE), 0).astype(np.uint8)

    def _piece(self, piece: Interval) -> tuple[np.ndarray, np.ndarray]:
        ids = self.reference.ids(piece)
        # A base is 0 to 3 above A, anything else more: what is below A wraps round.
        weight = np.less(ids - _A, _BASES).astype(np.float32)
        if self.softmask_weight != 1:
            np.multiply(weight, self._of_case[self.reference.softmask(piece).view(np.uint8)], out=weight)
        return ids, weight


class SampleKey(NamedTuple):
    epoch: int
    sample: int


class TrainingWindows(Dataset[Window]):
    """Random windows, by (epoch, sample).

    Args:
        windows: which row each key draws.
        reader: of their bases.
        max_n: rows with a larger share of N are passed over for another draw.
    """

    ATTEMPTS = 100

    def __init__(self, windows: RandomWindows, reader: WindowReader, max_n: float = 1.0) -> None:
        self.windows, self.reader, self.max_n = windows, reader, max_n

    def __getitem__(self, key: SampleKey) -> Window:
        """Raises RegionError when draw after draw has too many N."""
        for attempt in range(self.ATTEMPTS):
            window = self.reader(*self.windows(key.epoch, key.sample, attempt))
            if np.count_nonzero(window.ids == alphabet.N) <= self.max_n * window.ids.size:
                return window._replace(rejected=attempt)
        raise RegionError(
            f"{self.ATTEMPTS} windows in a row have a larger share of N",
            "raise it, or leave those regions out",
            field="max_n_frac",
            value=self.max_n,
        )


class FixedWindows(Dataset[Window]):
    """Given intervals, in order, with what validation tells apart; None stands for a window that counts nothing.

    Attributes:
        contigs: names of the contigs, in the order of ``Window.group``.
    """

    def __init__(self, intervals: Sequence[Interval], reader: WindowReader) -> None:
        self.intervals, self.reader = intervals, reader
        self.contigs = list(dict.fromkeys(interval.contig for interval in intervals))
        self._groups = {contig: number for number, contig in enumerate(self.contigs)}

    def __len__(self) -> int:
        return len(self.intervals)

    def __getitem__(self, index: int | None) -> Window:
        interval = self.intervals[index or 0]
        window = self.reader(interval)
        stratum = self.reader.stratum(interval, window)
        if index is None:
            return window._replace(weight=np.zeros_like(window.weight), stratum=np.zeros_like(stratum))
        return window._replace(stratum=stratum, group=self._groups[interval.contig])


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


class RunBatches(Sampler[list[SampleKey]]):
    """Batches of several epochs in their order, from any step on; an epoch's last one holds what is left of it.

    Args:
        size: samples of an epoch.
        batch_size: samples of a batch.
        epochs: of the run.
        shuffle_seed: see `KeySampler`.
        start: the first batch wanted.
    """

    def __init__(
        self, size: int, batch_size: int, epochs: int, *, shuffle_seed: int | None = None, start: int = 0
    ) -> None:
        self.batch_size, self.start = batch_size, start
        self.per_epoch = -(-size // batch_size)
        self.total = epochs * self.per_epoch
        self._keys = KeySampler(size, shuffle_seed=shuffle_seed)

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        first_epoch, passed = divmod(self.start, self.per_epoch)
        for epoch in range(first_epoch, self.total // self.per_epoch):
            self._keys.set_epoch(epoch)
            keys = list(self._keys)
            for batch in range(passed, self.per_epoch):
                yield keys[batch * self.batch_size : (batch + 1) * self.batch_size]
            passed = 0


class RunSampler(Sampler[SampleKey]):
    """The keys of a whole run in order, from any place on: sample n is number n mod E of epoch n div E.

    Args:
        total: samples of the run.
        per_epoch: samples of an epoch, E.
        start: the first one wanted.
        block: samples that a rank takes in a row; ``total`` and ``start`` are multiples of ``block * ranks``.
        rank: whose samples these are.
        ranks: that take blocks in turn.
    """

    def __init__(
        self, total: int, per_epoch: int, start: int = 0, *, block: int = 1, rank: int = 0, ranks: int = 1
    ) -> None:
        self.total, self.per_epoch, self.start = total, per_epoch, start
        self.block, self.rank, self.ranks = block, rank, ranks

    def __len__(self) -> int:
        return (self.total - self.start) // self.ranks

    def __iter__(self) -> Iterator[SampleKey]:
        for first in range(self.start + self.rank * self.block, self.total, self.block * self.ranks):
            for number in range(first, first + self.block):
                yield SampleKey(*divmod(number, self.per_epoch))


def shared_batches(count: int, block: int, rank: int, ranks: int) -> list[list[int | None]]:
    """Batches of ``block`` numbers below ``count`` for one rank; all ranks get as many, some of None alone."""
    return [
        list(range(first, min(first + block, count))) or [None]
        for first in range(rank * block, -(-count // (block * ranks)) * block * ranks, block * ranks)
    ]


def collate(windows: Sequence[Window]) -> Batch:
    """Right-pads to the longest."""
    length = max(window.ids.size for window in windows)
    ids = np.full((len(windows), length), alphabet.PAD, dtype=np.uint8)
    weight = np.zeros((len(windows), length), dtype=np.float32)
    reset = np.zeros((len(windows), length), dtype=bool) if any(len(w.starts) > 1 for w in windows) else None
    stratum = np.zeros((len(windows), length), dtype=np.uint8) if windows[0].stratum is not None else None
    for row, window in enumerate(windows):
        if stratum is not None and window.stratum is not None:
            stratum[row, : window.ids.size] = window.stratum
        ids[row, : window.ids.size] = window.ids
        weight[row, : window.weight.size] = window.weight
        if reset is not None:
            reset[row, window.starts] = True
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(weight),
        ["+".join(f"{piece}({piece.strand})" for piece in window.pieces) for window in windows],
        None if reset is None else torch.from_numpy(reset),
        sum(window.rejected for window in windows),
        None if stratum is None else torch.from_numpy(stratum),
        None if stratum is None else torch.tensor([window.group for window in windows]),
    )
