"""A variant as the sequences that a model compares: reference and alternative, on one or both strands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant, moved, normalise, reach

if TYPE_CHECKING:
    from genomamba.data.reference import Reference


class AllelePair(NamedTuple):
    """Rows in the order (strand, ref | alt); the two alleles span the same genome."""

    rows: list[np.ndarray]  # uint8 ids
    sites: list[tuple[int, int]]  # where the allele lies within each row


class VariantWindow(NamedTuple):
    """One change, trimmed, and the genome around it, read along one strand, on which it is left-aligned."""

    span: Interval
    context: np.ndarray  # uint8 ids of the reference, (span.length,)
    start: int  # of the bases that change, within context
    end: int
    alt: np.ndarray  # uint8 ids that replace them
    reach: int = 0  # bases that the change may move to the right and make the same sequence

    def other_strand(self) -> VariantWindow:
        """The same, read along the other strand, and left-aligned there: so either strand may be called the first."""
        size, alt = self.context.size, self.alt
        if alt.size:
            alt = np.roll(alt, -self.reach)
        context, alt = alphabet.reverse_complement(self.context), alphabet.reverse_complement(alt)
        start, end = size - self.end - self.reach, size - self.start - self.reach
        return VariantWindow(self.span, context, start, end, alt, self.reach)

    def pair(self, strands: Sequence[str] = "+-") -> AllelePair:
        """Both alleles on each of ``strands``, in their order."""
        rows, sites = [], []
        for strand in strands:
            here = self.other_strand() if strand == "-" else self
            rows += [here.context, here.alternative]
            sites += [(here.start, here.end), (here.start, here.start + here.alt.size)]
        return AllelePair(rows, sites)

    @property
    def alternative(self) -> np.ndarray:
        """uint8 ids of the whole window with the alternative allele in it."""
        return np.concatenate([self.context[: self.start], self.alt, self.context[self.end :]])


def longest_allele(window: int) -> int:
    """Changes longer than this leave too little context in a window of ``window`` bases."""
    return window // 2


class Placement(NamedTuple):
    """Where a change stands in its window, which may be cut where the contig ends."""

    core: Variant  # trimmed, and as far left as its reach goes
    reach: int  # see `VariantWindow`
    span: Interval
    whole: bool  # whether the contig cuts nothing off


def place_window(reference: Reference, variant: Variant, window: int, step: int = 1) -> Placement:
    """A variant's window: as many bases on one side of all that may be called changed as on the other.

    So it is ``window`` bases, or one less, and the same for every spelling of the change and on either strand.

    Args:
        reference: the genome.
        variant: in any spelling.
        window: bases of genome.
        step: the middle is moved to a grid with so many bases from place to place, so that neighbours have one
            window; at most `widest_step`. The grid grows from the contig's middle, so that it is the same along
            either strand.
    """
    core = normalise(variant, reference.sequence).trimmed()
    length = reference.contigs[core.contig]
    moves = 0
    if not (core.ref and core.alt):  # an insertion or a deletion
        ahead = window
        while (moves := reach(core, reference.sequence(core.contig, core.end, min(length, core.end + ahead)))) == ahead:
            ahead *= 2  # a longer repeat
    # Half the window is context; of a longer repeat the middle counts.
    most = max(0, longest_allele(window) - max(len(core.ref), len(core.alt)))
    if moves > most:
        outside = (moves - most) // 2
        core, moves = moved(core, outside), moves - 2 * outside
    sides = core.start + core.end + moves  # of the middle, twice
    if step > 1:
        off = sides - length
        steps = (abs(off) + step) // (2 * step)
        sides = length + 2 * step * (steps if off > 0 else -steps)
    start = -((window - sides) // 2)
    end = sides - start
    span = Interval(core.contig, max(0, start), min(length, end))
    return Placement(core, moves, span, span.length == end - start)


def widest_step(window: int) -> int:
    """Windows that are moved further leave too little context on one side."""
    return max(1, window // 4)


def read_window(reference: Reference, variant: Variant, window: int, step: int = 1) -> VariantWindow:
    """Reads the genome around a variant, along the + strand.

    The variant is left-aligned and trimmed first, so that every spelling of one change gives the same.

    Args:
        reference: the genome; its bases, not the variant's, fill the context.
        variant: its ref must agree with the reference, and its changed part not exceed `longest_allele`.
        window: genomic span in bases.
        step: see `place_window`.
    """
    core, moves, span, _ = place_window(reference, variant, window, step)
    start, end = core.start - span.start, core.end - span.start
    return VariantWindow(span, reference.ids(span), start, end, alphabet.encode(core.alt), moves)


def allele_pair(reference: Reference, variant: Variant, window: int, strands: Sequence[str] = "+-") -> AllelePair:
    """Reads the window and writes both alleles into it.

    Args:
        reference: as in `read_window`.
        variant: as in `read_window`.
        window: genomic span in bases.
        strands: any of "+" and "-", in the order wanted.
    """
    return read_window(reference, variant, window).pair(strands)


def stack_pairs(pairs: Sequence[AllelePair], strands: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids (V, S, 2, L) uint8, length (V, S, 2), site (V, S, 2, 2)), right-padded."""
    longest = max(row.size for pair in pairs for row in pair.rows)
    ids = np.full((len(pairs), 2 * strands, longest), alphabet.PAD, dtype=np.uint8)
    for number, pair in enumerate(pairs):
        for place, row in enumerate(pair.rows):
            ids[number, place, : row.size] = row
    shape = (len(pairs), strands, 2)
    length = torch.tensor([[row.size for row in pair.rows] for pair in pairs]).view(shape)
    site = torch.tensor([pair.sites for pair in pairs]).view(*shape, 2)
    return torch.from_numpy(ids).view(*shape, longest), length, site
