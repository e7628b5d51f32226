"""Tracks of bits per base: of one strand or of both, along the genome, in memory that does not grow with the contig."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import IO

import numpy as np

from genomamba.data.tracks import TrackPiece
from genomamba.genome.interval import Interval
from genomamba.scoring.streaming import PieceBits

StrandBits = Callable[[Interval], Iterable[PieceBits]]
_AT_ONCE = 1 << 16  # bases read back from the spool where nothing else cuts them


class LikelihoodTrack:
    """Regions → pieces of a track of bits per base, each region from its lowest coordinate to its highest.

    What is read from the other end is kept in a temporary file, 4 bytes per base, until its turn comes.

    Args:
        bits: of the bases of an interval along its strand: `stream_bits` or `MaskedBits`.
        both_strands: the mean of the bits that either strand gives; of a base that only one of them predicts, as a
            causal model does the first, those. Otherwise the region's own strand is read.
        progress: called with the number of bases whenever so many have been read; each base counts once per strand.
    """

    def __init__(self, bits: StrandBits, *, both_strands: bool, progress: Callable[[int], object]) -> None:
        self.bits, self.both_strands, self.progress = bits, both_strands, progress

    def __call__(self, region: Interval) -> Iterator[TrackPiece]:
        plus, minus = (Interval(region.contig, region.start, region.end, strand) for strand in "+-")
        if not self.both_strands and region.strand != "-":
            for piece in self._read(plus):
                yield TrackPiece(piece.interval.contig, piece.interval.start, piece.bits.astype(np.float32))
            return
        with ExitStack() as stack:
            spool = stack.enter_context(tempfile.TemporaryFile())
            for piece in self._read(minus):
                spool.seek(4 * (piece.interval.start - region.start))
                spool.write(piece.bits[::-1].astype(np.float32).tobytes())
            spool.seek(0)
            if not self.both_strands:
                while (values := _take(spool, _AT_ONCE)).size:
                    yield TrackPiece(region.contig, region.start, values)
                    region = Interval(region.contig, region.start + values.size, region.end)
                return
            for piece in self._read(plus):
                mean = _mean(piece.bits, _take(spool, piece.bits.size))
                yield TrackPiece(piece.interval.contig, piece.interval.start, mean)

    def _read(self, interval: Interval) -> Iterator[PieceBits]:
        for piece in self.bits(interval):
            yield piece
            self.progress(piece.bits.size)


def _take(spool: IO[bytes], bases: int) -> np.ndarray:
    return np.frombuffer(spool.read(4 * bases), dtype=np.float32)


def _mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each base, over the strands that predict it."""
    count = (~np.isnan(first)).astype(np.float64) + ~np.isnan(second)
    total = np.nan_to_num(first) + np.nan_to_num(second)
    return np.divide(total, count, out=np.full(first.size, np.nan), where=count > 0).astype(np.float32)
