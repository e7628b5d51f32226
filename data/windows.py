"""Which stretches of a reference a model is shown, and in which order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

from genomamba.data.references import Genome
from genomamba.errors import RegionError
from genomamba.genome.interval import Interval

N_RUN = 50  # shorter runs of N stay inside windows; longer ones part them
_SCAN_BLOCK = 1 << 24


def sequenced_regions(reference: Genome, within: Iterable[Interval]) -> list[Interval]:
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


def whole_contigs(reference: Genome) -> list[Interval]:
    return [Interval(contig, 0, length) for contig, length in reference.contigs.items() if length]


def tiles(regions: Iterable[Interval], window: int) -> list[Interval]:
    """Windows side by side over each region; the last of a region may be shorter."""
    return [
        Interval(region.contig, start, min(start + window, region.end), region.strand)
        for region in regions
        for start in range(region.start, region.end, window)
    ]


class RandomWindows:
    """Sample i of epoch e is a pure function of (seed, e, i).

    Every base of the regions is drawn equally often, but for the ends of long regions. A region shorter than the
    window shares its row with others: rows are filled with short regions, each drawn by its length and whole, but
    for the last, of which a random part fits.
    """

    def __init__(
        self,
        regions: Sequence[Interval],
        window: int,
        *,
        seed: int,
        both_strands: bool,
        mixture: Sequence[tuple[frozenset[str], float]] | None = None,
        pack: bool = True,
        stride: int = 1,
        jitter: int = 0,
    ) -> None:
        """Args:
            regions: where windows may lie.
            window: bases per row.
            seed: of places and strands.
            both_strands: whether half of the windows are of the reverse strand.
            mixture: contigs and the share of rows that they get, however long they are; shares need not sum to 1.
            pack: whether short regions share rows; otherwise each has a row of its own length.
            stride: windows of long regions start at multiples of it from the region's start.
            jitter: and up to so many bases further on, where the region allows.

        Raises:
            RegionError: there is nothing to sample from, or nothing of one part of the mixture.
        """
        if not regions:
            raise RegionError("no sequence is left to train on", "hold out less, or give another reference")
        self.window, self.seed, self.both_strands = window, seed, both_strands
        parts = [([r for r in regions if r.contig in contigs], share) for contigs, share in mixture or ()]
        for number, (own, share) in enumerate(parts):
            if share > 0 and not own:
                raise RegionError(
                    f"no sequence of reference {number + 1} is left to train on", "hold out less of it", field="mixture"
                )
        self._pools = [_Pool(own, window, pack, stride, jitter) for own, share in parts if share > 0] or [
            _Pool(regions, window, pack, stride, jitter)
        ]
        shares = np.cumsum([share for _, share in parts if share > 0] or [1.0])
        self._shares = (shares / shares[-1]).tolist()

    def __call__(self, epoch: int, index: int, attempt: int = 0) -> list[Interval]:
        """The pieces of one row, ``window`` bases in all, or fewer where a pool has no more to give.

        Args:
            epoch: of the run.
            index: of the sample within its epoch.
            attempt: another row for the same place, when the one before was unfit.
        """
        # Draws advance the first word, so attempts lie 2^32 draws apart.
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[attempt << 32, 0, epoch, index]))
        number = bisect_right(self._shares, random.random()) if len(self._pools) > 1 else 0
        return [
            Interval(piece.contig, piece.start, piece.end, "-" if self.both_strands and random.integers(2) else "+")
            for piece in self._pools[number].draw(random)
        ]


class _Pool:
    """Regions, by the chance of each: a long one counts its starts, the short ones together their bases."""

    def __init__(self, regions: Sequence[Interval], window: int, pack: bool, stride: int, jitter: int) -> None:
        self._window, self._pack, self._stride, self._jitter = window, pack, stride, jitter
        self._long = [region for region in regions if region.length >= window]
        self._short = [region for region in regions if region.length < window]
        self._starts = np.cumsum([region.length - window + 1 for region in self._long], dtype=np.int64)
        self._bases = np.cumsum([region.length for region in self._short], dtype=np.int64)

    def draw(self, random: np.random.Generator) -> list[Interval]:
        starts = int(self._starts[-1]) if self._long else 0
        bases = int(self._bases[-1]) if self._short else 0
        place = int(random.integers(starts + bases))
        if place < starts:
            number = int(np.searchsorted(self._starts, place, side="right"))
            region = self._long[number]
            offset = place - (int(self._starts[number - 1]) if number else 0)
            offset -= offset % self._stride
            if self._jitter:
                room = region.length - self._window - offset
                offset += int(random.integers(min(self._jitter, room) + 1))
            start = region.start + offset
            return [Interval(region.contig, start, start + self._window)]
        pieces, room = [], self._window
        place -= starts
        while room:
            region = self._short[int(np.searchsorted(self._bases, place, side="right"))]
            fits = min(region.length, room)
            start = region.start + int(random.integers(region.length - fits + 1))
            pieces.append(Interval(region.contig, start, start + fits))
            room -= fits
            if not self._pack:
                break
            place = int(random.integers(bases))
        return pieces
