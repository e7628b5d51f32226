"""Windows of a reference with the values that tracks have there: what a model of tracks is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genomamba.data.bigwig import BigWig
from genomamba.data.datasets import SampleKey
from genomamba.data.references import Genome
from genomamba.data.windows import RandomWindows, merged
from genomamba.errors import LabelError, RegionError
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.genome.interval import Interval

Missing = Literal["zero", "skip"]
Targets = NDArray[np.float32]

_AT_ONCE = 1 << 20  # values


class TrackSample(NamedTuple):
    """One window."""

    ids: Ids  # (L,)
    target: Targets  # (L, tracks); NaN where a base does not count
    where: str


class TrackBatch(NamedTuple):
    """Windows side by side, right-padded."""

    ids: Tensor  # (B, L), uint8
    length: Tensor | None  # (B,), None where no row is padded
    target: Tensor  # (B, L, tracks), fp32; NaN where a base does not count, as padding does not
    where: list[str]

    def to(self, device: torch.device) -> TrackBatch:
        """The same on ``device``."""
        length = None if self.length is None else self.length.to(device, non_blocking=True)
        ids, target = (tensor.to(device, non_blocking=True) for tensor in (self.ids, self.target))
        return TrackBatch(ids, length, target, self.where)


class TrackReader:
    """Intervals → ids and targets.

    Args:
        reference: the genome.
        files: one per track, on its contigs.
        missing: what a base is worth that a file has no value of: 0, or nothing (it does not count).
    """

    def __init__(self, reference: Genome, files: Sequence[BigWig], missing: Missing) -> None:
        self.reference, self.files, self.missing = reference, files, missing

    def __call__(self, interval: Interval) -> TrackSample:
        """Only A, C, G and T count."""
        ids = self.reference.ids(interval)
        return TrackSample(ids, self.targets(ids, self.values(interval)), f"{interval}({interval.strand})")

    def values(self, interval: Interval) -> Targets:
        """As the files have them, (L, tracks), NaN where one has none."""
        return np.stack([file.values(interval) for file in self.files], 1)

    def targets(self, ids: Ids, values: Targets) -> Targets:
        """``values``, which are written to, with NaN where a base does not count."""
        if self.missing == "zero":
            np.nan_to_num(values, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
        values[(ids < alphabet.A) | (ids > alphabet.T)] = np.nan
        return values


class RandomTrackWindows(Dataset[TrackSample]):
    """Random windows, by (epoch, sample); those without a base that counts are passed over.

    Args:
        windows: which row each key draws, without packing.
        reader: of what is there.
    """

    ATTEMPTS = 200

    def __init__(self, windows: RandomWindows, reader: TrackReader) -> None:
        self.windows, self.reader = windows, reader

    def __getitem__(self, key: SampleKey) -> TrackSample:
        """Raises RegionError when draw after draw has nothing that counts."""
        for attempt in range(self.ATTEMPTS):
            (piece,) = self.windows(key.epoch, key.sample, attempt)
            sample = self.reader(piece)
            if not np.isnan(sample.target).all():
                return sample
        raise RegionError(
            f"{self.ATTEMPTS} windows in a row have no value", "name regions that have some", field="regions"
        )


class TrackTiles(Dataset[TrackSample]):
    """Given intervals, in order."""

    def __init__(self, intervals: Sequence[Interval], reader: TrackReader) -> None:
        self.intervals, self.reader = intervals, reader

    def __len__(self) -> int:
        return len(self.intervals)

    def __getitem__(self, index: int) -> TrackSample:
        return self.reader(self.intervals[index])


def collate_tracks(samples: Sequence[TrackSample]) -> TrackBatch:
    """Right-pads to the longest."""
    sizes = [sample.ids.size for sample in samples]
    longest = max(sizes)
    ids = np.full((len(samples), longest), alphabet.PAD, dtype=np.uint8)
    target = np.full((len(samples), longest, samples[0].target.shape[1]), np.nan, dtype=np.float32)
    for row, sample in enumerate(samples):
        ids[row, : sizes[row]] = sample.ids
        target[row, : sizes[row]] = sample.target
    length = None if min(sizes) == longest else torch.tensor(sizes)
    return TrackBatch(torch.from_numpy(ids), length, torch.from_numpy(target), [sample.where for sample in samples])


class TrackSummary(NamedTuple):
    """What tracks hold in some regions.

    Attributes:
        bases: A, C, G and T.
        valued: of them those that each file has a value of, (T,).
        counted: and those that count, (T,); more where what is missing is 0.
        mean: of what counts, (T,), NaN where nothing does.
        spread: its standard deviation, (T,).
        lowest, highest: of what counts, (T,).
        regions: the parts of the regions in which there is something to be learnt.
    """

    bases: int
    valued: NDArray[np.int64]
    counted: NDArray[np.int64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    regions: list[Interval]


def summarise_tracks(
    reader: TrackReader,
    regions: Sequence[Interval],
    window: int,
    *,
    counts: bool,
    progress: Callable[[int], object] = lambda bases: None,
) -> TrackSummary:
    """Reads everything once.

    Args:
        reader: of the tracks.
        regions: which do not overlap.
        window: bases of the windows that are to be drawn; where none counts for longer than that, nothing is learnt.
        counts: whether values below 0 are refused.
        progress: called with the number of bases done.

    Raises:
        LabelError: a value is not finite, or below 0 where that is refused.
    """
    tracks = len(reader.files)
    valued, counted = np.zeros(tracks, np.int64), np.zeros(tracks, np.int64)
    mean, squares = np.zeros(tracks), np.zeros(tracks)
    lowest, highest = np.full(tracks, np.inf), np.full(tracks, -np.inf)
    near: list[Interval] = []
    bases = 0
    at_once = max(1, _AT_ONCE // (window * tracks)) * window
    for region in regions:
        for start in range(region.start, region.end, at_once):
            piece = Interval(region.contig, start, min(start + at_once, region.end))
            ids, values = reader.reference.ids(piece), reader.values(piece)
            _check(reader, piece, values, counts=counts)
            is_base = (ids >= alphabet.A) & (ids <= alphabet.T)
            bases += int(is_base.sum())
            valued += (~np.isnan(values) & is_base[:, None]).sum(0)
            target = reader.targets(ids, values).astype(np.float64)
            # Of what comes in pieces, by the differences of their means (Chan et al. 1983).
            own = (~np.isnan(target)).sum(0)
            here = np.nansum(target, 0) / np.maximum(own, 1)
            apart, total = here - mean, np.maximum(counted + own, 1)
            squares += np.nansum((target - here) ** 2, 0) + apart**2 * counted * own / total
            mean += apart * own / total
            counted += own
            lowest = np.fmin(lowest, np.fmin.reduce(target, 0))
            highest = np.fmax(highest, np.fmax.reduce(target, 0))
            near += merged(_near(piece, region, np.logical_or.reduce(~np.isnan(target), 1), window))
            progress(piece.length)
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(squares / counted)
    mean[counted == 0] = np.nan
    return TrackSummary(bases, valued, counted, mean, spread, lowest, highest, merged(near))


def _near(piece: Interval, region: Interval, counts: NDArray[np.bool_], window: int) -> list[Interval]:
    """Tiles of a piece in which a base counts, and as much again on either side, as far as the region goes."""
    tiles = np.arange(0, piece.length, window)
    starts = piece.start + tiles[np.logical_or.reduceat(counts, tiles)]
    return [
        Interval(region.contig, max(start - window, region.start), min(start + 2 * window, region.end))
        for start in starts.tolist()
    ]


def _check(reader: TrackReader, piece: Interval, values: Targets, *, counts: bool) -> None:
    for problem, remedy, wrong in (
        ("a value that is not finite", "mend the file", np.isinf(values)),
        ("a value below 0, which is no count", "train with --loss mse", values < 0 if counts else None),
    ):
        if wrong is not None and wrong.any():
            at, track = np.argwhere(wrong)[0].tolist()
            where = Interval(piece.contig, piece.start + at, piece.start + at + 1)
            raise LabelError(
                f"{problem}, {values[at, track]:g}", remedy, file=reader.files[track].path, field="region", value=where
            )
