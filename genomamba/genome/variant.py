"""One change of sequence: a reference allele at a place, and what replaces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from genomamba.errors import VariantFileError
from genomamba.genome.alphabet import IUPAC
from genomamba.genome.interval import Interval

Kind = Literal["SNV", "MNV", "INS", "DEL", "INDEL"]
Fetch = Callable[[str, int, int], str]

_FIRST_STEP = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """``ref`` at ``[start, start + len(ref))`` becomes ``alt``.

    Alleles are upper-case IUPAC letters. One of them may be empty (an insertion or deletion without its anchor
    base, which VCF cannot write); they differ.

    Args:
        contig: name of the contig.
        start: first base of ``ref``, 0-based.
        ref: reference allele.
        alt: alternative allele.

    Raises:
        VariantFileError: a negative start, a letter that is no nucleotide code, or equal alleles.
    """

    contig: str
    start: int
    ref: str
    alt: str

    def __post_init__(self) -> None:
        if self.start < 0:
            raise VariantFileError(
                "it lies before the contig's start", "POS counts from 1", field="POS", value=self.pos
            )
        for field, allele in (("REF", self.ref), ("ALT", self.alt)):
            if not set(allele) <= set(IUPAC):
                raise VariantFileError(
                    "no sequence of nucleotide codes", "use A, C, G, T, N", field=field, value=allele
                )
        if self.ref == self.alt:
            raise VariantFileError("the allele equals REF", "leave the record out", field="ALT", value=self.alt)

    def __str__(self) -> str:
        return f"{self.contig}:{self.pos}:{self.ref}>{self.alt}"

    @property
    def end(self) -> int:
        """One past the last base of ``ref``, 0-based."""
        return self.start + len(self.ref)

    @property
    def pos(self) -> int:
        """``start`` as VCF counts it, from 1."""
        return self.start + 1

    @property
    def interval(self) -> Interval:
        """The bases of ``ref``."""
        return Interval(self.contig, self.start, self.end)

    @property
    def kind(self) -> Kind:
        """By what is left of the alleles once shared bases are trimmed."""
        core = self.trimmed()
        if not core.ref:
            return "INS"
        if not core.alt:
            return "DEL"
        if len(core.ref) != len(core.alt):
            return "INDEL"
        return "SNV" if len(core.ref) == 1 else "MNV"

    def trimmed(self) -> Variant:
        """Without the bases that both alleles share: first at the end, then at the start.

        Spellings of one change that differ by padding alone become equal; use ``normalise`` where repeats may
        have moved it.
        """
        tail = _shared(self.ref[::-1], self.alt[::-1])
        ref, alt = self.ref[: len(self.ref) - tail], self.alt[: len(self.alt) - tail]
        head = _shared(ref, alt)
        return Variant(self.contig, self.start + head, ref[head:], alt[head:])


def _shared(a: str, b: str) -> int:
    """Length of the common prefix."""
    limit = min(len(a), len(b))
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def normalise(variant: Variant, fetch: Fetch) -> Variant:
    """The parsimonious, left-aligned form, which is one and the same for every spelling of a change.

    Tan, Abecasis & Kang 2015 (doi:10.1093/bioinformatics/btv112), as ``vt normalize`` and ``bcftools norm`` do it.
    No allele of the result is empty: an anchor base stands to the left, or to the right at the contig's start.

    Args:
        variant: its ``ref`` must agree with the reference, or the result means nothing.
        fetch: ``fetch(contig, start, end)`` gives reference bases, 0-based half-open; case does not matter.
    """
    core = variant.trimmed()
    if core.ref and core.alt:
        return core
    # One allele is empty: the change rolls left for as long as its last base equals the base before it.
    start, moving = core.start, core.ref or core.alt
    rolled, step = 0, _FIRST_STEP
    while start > 0:
        flank = fetch(core.contig, max(0, start - step), start).upper()
        run = _matching_tail(flank, moving, rolled)
        start, rolled = start - run, rolled + run
        if run < len(flank):
            break
        step *= 2
    turn = rolled % len(moving)
    moving = moving[len(moving) - turn :] + moving[: len(moving) - turn]
    ref, alt = ("", moving) if core.alt else (moving, "")
    if start > 0:
        anchor = fetch(core.contig, start - 1, start).upper()
        return Variant(core.contig, start - 1, anchor + ref, anchor + alt)
    anchor = fetch(core.contig, len(ref), len(ref) + 1).upper()  # empty where the whole contig is deleted
    return Variant(core.contig, 0, ref + anchor, alt + anchor)


def reach(variant: Variant, flank: str) -> int:
    """How far right a change may move, over ``flank``, so that the sequence it makes stays the same.

    Args:
        variant: an insertion or deletion, left-aligned and trimmed.
        flank: upper-case reference bases from ``variant.end`` on.
    """
    moving = variant.ref or variant.alt
    return next((i for i, base in enumerate(flank) if base != moving[i % len(moving)]), len(flank))


def moved(variant: Variant, by: int) -> Variant:
    """The same change ``by`` bases further right, which is at most its `reach`."""
    moving = variant.ref or variant.alt
    turn = by % len(moving)
    moving = moving[turn:] + moving[:turn]
    ref, alt = (moving, "") if variant.ref else ("", moving)
    return Variant(variant.contig, variant.start + by, ref, alt)


def _matching_tail(flank: str, moving: str, rolled: int) -> int:
    """How many bases of ``flank``, from its end, equal ``moving`` read backwards and cyclically."""
    size = len(moving)
    for i in range(len(flank)):
        if flank[-1 - i] != moving[size - 1 - (rolled + i) % size]:
            return i
    return len(flank)
