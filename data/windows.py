"""Which stretches of a reference a model is shown, and in which order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

from genomamba.data.reference import Reference
from genomamba.errors import RegionError
from genomamba.genome.interval import Interval

N_RUN = 50  # shorter runs of N stay inside windows; longer ones part them
_SCAN_BLOCK = 1 << 24


def sequenced_regions(reference: Reference, within: Iterable[Interval]) -> list[Interval]:
    """The parts of ``within`` between runs of at least N_RUN N's, in order."""
    found: list[Interval] = []
    for interval in within:
        start: int | None = None  # of the stretch being grown
        end = interval.start  # one past its last base that is not N
        for block in range(interval.start, interval.end, _SCAN_BLOCK):
            stop = min(block + _SCAN_BLOCK, interval.end)
            residues = reference.fetch(Interval(interval.contig, block, stop))
            bases = block + np.flatnonzero((residues != ord("N")) & (residues != ord("n")))
            if bases.size == 0:
                continue
            breaks = np.flatnonzero(np.diff(bases) > N_RUN)
            for first, last in zip(np.r_[0, breaks + 1], np.r_[breaks, bases.size - 1], strict=True):
                if start is not None and bases[first] - end >= N_RUN:
                    found.append(Interval(interval.contig, start, end))
                    start = None
                start = int(bases[first]) if start is None else start
                end = int(bases[last]) + 1
        if start is not None:
            found.append(Interval(interval.contig, start, end))
    return found


def merged(regions: Iterable[Interval]) -> list[Interval]:
    """The same bases in as few intervals as possible, in order, on the plus strand."""
    out: list[Interval] = []
    for region in sorted(regions):
        if out and out[-1].contig == region.contig and region.start <= out[-1].end:
            out[-1] = Interval(region.contig, out[-1].start, max(out[-1].end, region.end))
        else:
            out.append(Interval(region.contig, region.start, region.end))
    return out


def subtract(regions: Iterable[Interval], held_out: Sequence[Interval]) -> list[Interval]:
    """What remains of ``regions`` when no base of ``held_out`` may be seen."""
    remaining: list[Interval] = []
    for region in regions:
        start = region.start
        for hole in sorted(h for h in held_out if h.contig == region.contig):
            if hole.start > start:
                remaining.append(Interval(region.contig, start, min(hole.start, region.end)))
            start = max(start, hole.end)
            if start >= region.end:
                break
        if start < region.end:
            remaining.append(Interval(region.contig, start, region.end))
    return [region for region in remaining if region.start < region.end]


def whole_contigs(reference: Reference) -> list[Interval]:
    return [Interval(contig, 0, length) for contig, length in reference.contigs.items() if length]


def tiles(regions: Iterable[Interval], window: int) -> list[Interval]:
    """Windows side by side over each region; the last of a region may be shorter."""
    return [
        Interval(region.contig, start, min(start + window, region.end), region.strand)
        for region in regions
        for start in range(region.start, region.end, window)
    ]


class RandomWindows:
    """Sample i of epoch e is a pure function of (seed, e, i): every start in the regions is equally likely.

    A region shorter than the window is one window of its own length; nothing is dropped.
    """

    def __init__(self, regions: Sequence[Interval], window: int, *, seed: int, both_strands: bool) -> None:
        """Raises RegionError when there is nothing to sample from."""
        if not regions:
            raise RegionError("no sequence is left to train on", "hold out less, or give another reference")
        self.regions, self.window, self.seed, self.both_strands = list(regions), window, seed, both_strands
        self.starts = np.cumsum([max(1, region.length - window + 1) for region in regions]).tolist()

    def __call__(self, epoch: int, index: int) -> Interval:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, epoch, index]))
        place = int(random.integers(self.starts[-1]))
        number = bisect_right(self.starts, place)
        region = self.regions[number]
        start = region.start + place - (self.starts[number - 1] if number else 0)
        strand = "-" if self.both_strands and random.integers(2) else "+"
        return Interval(region.contig, start, min(start + self.window, region.end), strand)
