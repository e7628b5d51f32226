"""Held-out regions by blocks, and the proof that training sees none of what is held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genomamba.data.references import Genome
from genomamba.errors import RegionError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

K = 31  # a k-mer this long recurs in a genome by descent, hardly by chance
_SAMPLED = 16  # one k-mer in so many, chosen by its hash, so that both sides choose alike
_SCAN_BLOCK = 1 << 20


def draw_blocks(regions: Iterable[Interval], size: int, fraction: float, seed: int) -> list[Interval]:
    """Blocks of ``size`` bases, a ``fraction`` of all of them at random, which ``seed`` decides; at least one."""
    blocks = [
        Interval(region.contig, start, min(start + size, region.end))
        for region in regions
        for start in range(region.start, region.end, size)
    ]
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 4, 0, 0]))
    chosen = random.permutation(len(blocks))[: max(1, round(fraction * len(blocks)))]
    return [blocks[index] for index in sorted(chosen.tolist())]


def shared_bases(one: Sequence[Interval], other: Sequence[Interval]) -> int:
    """How many bases lie in both; strands do not matter."""
    spans: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for side, intervals in ((0, one), (1, other)):
        for interval in intervals:
            spans[interval.contig] += [(interval.start, side, 1), (interval.end, side, -1)]
    shared = 0
    for edges in spans.values():
        depth, before = [0, 0], 0
        for at, side, step in sorted(edges):
            shared += at - before if depth[0] and depth[1] else 0
            depth[side] += step
            before = at
    return shared


class LeakReport(NamedTuple):
    """What training shares with each held-out split.

    Attributes:
        bases: of each split.
        shared: bases of each split that lie in a training region.
        contained: share of each split's k-mers that training has too, on either strand; None when not measured.
    """

    bases: dict[str, int]
    shared: dict[str, int]
    contained: dict[str, float | None]

    def __str__(self) -> str:
        lines = []
        for name, bases in self.bases.items():
            line = f"{name}: {bases:,} bases held out, {self.shared[name]} of them in training windows"
            contained = self.contained[name]
            if contained is not None:
                line += f"; {100 * contained:.2f} % of their {K}-mers occur in training sequence (both strands)"
            lines.append(line)
        return "\n".join(lines)


def leak_report(
    genome: Genome, training: Sequence[Interval], held_out: Mapping[str, Sequence[Interval]], *, by_sequence: bool
) -> LeakReport:
    """Compares training regions, which every training window lies in, with each held-out split.

    Raises:
        RegionError: a split shares a base with training, or with another split.
    """
    names = list(held_out)
    shared = {name: shared_bases(training, held_out[name]) for name in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if shared_bases(held_out[a], held_out[b])]
    if pairs:
        a, b = pairs[0]
        count = shared_bases(held_out[a], held_out[b])
        raise RegionError(f"{a} and {b} share {count:,} bases", "hold each base out once", field=b)
    for name, count in shared.items():
        if count:
            raise RegionError(f"{count:,} of its bases are in training windows", "hold them out", field=name)
    contained: dict[str, float | None] = dict.fromkeys(names)
    if by_sequence:
        kmers = {name: _sampled_kmers(genome, held_out[name]) for name in names}
        contained = _contained(kmers, genome, training)
    bases = {name: sum(interval.length for interval in intervals) for name, intervals in held_out.items()}
    return LeakReport(bases, shared, contained)


def contained_share(
    genome: Genome, regions: Sequence[Interval], trained_on: Genome, training: Sequence[Interval]
) -> float | None:
    """The share of the k-mers of ``regions`` that ``training`` has too, on either strand; None where they have none.

    The two may be of different genomes.
    """
    return _contained({"": _sampled_kmers(genome, regions)}, trained_on, training)[""]


def _contained(
    kmers: Mapping[str, NDArray[np.uint64]], genome: Genome, training: Sequence[Interval]
) -> dict[str, float | None]:
    seen = _present(genome, training, kmers)
    return {name: float(found.mean()) if found.size else None for name, found in seen.items()}


def _sampled_kmers(genome: Genome, regions: Sequence[Interval]) -> NDArray[np.uint64]:
    hashes = [_hashes(genome.ids(block)) for region in regions for block in _blocks(region)]
    return np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)


def _present(
    genome: Genome, training: Sequence[Interval], kmers: Mapping[str, NDArray[np.uint64]]
) -> dict[str, NDArray[np.bool_]]:
    seen = {name: np.zeros(own.size, dtype=bool) for name, own in kmers.items()}
    for region in training:
        for block in _blocks(region):
            hashes = np.unique(_hashes(genome.ids(block)))
            for name, own in kmers.items():
                seen[name] |= np.isin(own, hashes, assume_unique=True)
    return seen


def _blocks(region: Interval) -> list[Interval]:
    """Overlapping by K - 1, so that no k-mer falls between two."""
    starts = range(region.start, max(region.start + 1, region.end - K + 1), _SCAN_BLOCK)
    return [Interval(region.contig, s, min(s + _SCAN_BLOCK + K - 1, region.end)) for s in starts]


def _hashes(ids: alphabet.Ids) -> NDArray[np.uint64]:
    """Hashes of the k-mers of A, C, G, T alone, the same for both strands; one in _SAMPLED."""
    count = ids.size - K + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    base = (ids - np.uint8(alphabet.A)).astype(np.uint64)
    forward, backward = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    for offset in range(K):
        window = base[offset : offset + count]
        forward = (forward << np.uint64(2)) | (window & np.uint64(3))
        backward |= (np.uint64(3) - (window & np.uint64(3))) << np.uint64(2 * offset)
    is_base = np.concatenate([[0], np.cumsum((ids >= alphabet.A) & (ids <= alphabet.T))])
    hashes = np.minimum(forward, backward)[is_base[K:] - is_base[:-K] == K]
    # A multiplication and shifts spread neighbouring codes (the finaliser of a 64-bit mixing function).
    hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(29)
    return hashes[hashes % np.uint64(_SAMPLED) == 0]
