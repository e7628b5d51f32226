"""Which alleles of a record can be scored, and why the others cannot."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from genomamba.data.pairs import longest_allele, place_window
from genomamba.data.reference import Reference
from genomamba.data.vcf import VcfRecord
from genomamba.genome.alphabet import IUPAC
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant


class Status(StrEnum):
    """What became of one allele; the ``SKIP_`` ones have no score."""

    OK = "OK"
    #: scored, but its window is cut where the contig ends
    EDGE = "EDGE"
    #: the reference has other bases than REF there
    SKIP_REF_MISMATCH = "SKIP_REF_MISMATCH"
    #: the reference itself has N or another ambiguity code there, so REF cannot be checked
    SKIP_REFERENCE_AMBIGUOUS = "SKIP_REFERENCE_AMBIGUOUS"
    #: N or another ambiguity code in REF
    SKIP_AMBIGUOUS_REF = "SKIP_AMBIGUOUS_REF"
    #: N or another ambiguity code in ALT
    SKIP_AMBIGUOUS_ALT = "SKIP_AMBIGUOUS_ALT"
    #: ``<DEL>`` and its like
    SKIP_SYMBOLIC = "SKIP_SYMBOLIC"
    #: a breakend, paired or single
    SKIP_BREAKEND = "SKIP_BREAKEND"
    #: ``*``: the base is gone with a deletion that starts upstream
    SKIP_SPANNING_DELETION = "SKIP_SPANNING_DELETION"
    #: ``.``: there is no other allele
    SKIP_NO_ALT = "SKIP_NO_ALT"
    #: empty, or with a character that stands for no nucleotide
    SKIP_MALFORMED_ALLELE = "SKIP_MALFORMED_ALLELE"
    SKIP_ALT_EQUALS_REF = "SKIP_ALT_EQUALS_REF"
    #: the reference has no contig of that name
    SKIP_NO_CONTIG = "SKIP_NO_CONTIG"
    #: POS 0, or REF runs past the contig's end
    SKIP_OUT_OF_RANGE = "SKIP_OUT_OF_RANGE"
    #: more bases change than the model's window allows
    SKIP_TOO_LONG = "SKIP_TOO_LONG"

    @property
    def scored(self) -> bool:
        """Whether an allele with this status gets a score."""
        return self in (Status.OK, Status.EDGE)


class Allele(NamedTuple):
    """One entry of ALT: a variant where it is scored (alleles in upper case), else the reason why not."""

    status: Status
    variant: Variant | None = None


class Site(NamedTuple):
    """What ``classify`` says of a record.

    Attributes:
        ref: how REF stands to the reference, whatever ALT is: OK, or one of SKIP_REF_MISMATCH,
            SKIP_REFERENCE_AMBIGUOUS, SKIP_AMBIGUOUS_REF, SKIP_MALFORMED_ALLELE, SKIP_NO_CONTIG, SKIP_OUT_OF_RANGE.
        alleles: one for each entry of ALT, in order.
    """

    ref: Status
    alleles: tuple[Allele, ...]


def classify(
    record: VcfRecord, contig: str | None, reference: Reference, *, window: int | None = None, step: int = 1
) -> Site:
    """Sorts the alleles of one record into those to score and those to skip.

    A missing contig is named first, then what is wrong with an ALT by itself, then what is wrong with REF.

    Args:
        record: as read.
        contig: the reference's name of its contig, None where it has none.
        reference: the genome.
        window: bases of genome that the model sees around a variant: what changes more than ``longest_allele`` of it
            is too long, and what lies nearer to the contig's end than the window reaches is EDGE. None: neither.
        step: of the windows' middles, see ``place_window``.
    """
    ref = check_ref(record.ref, record.pos - 1, contig, reference)
    alleles = tuple(_allele(record, alt, ref, contig, reference, window, step) for alt in record.alts)
    return Site(ref, alleles)


def check_ref(ref: str, start: int, contig: str | None, reference: Reference) -> Status:
    """How ``ref`` at 0-based ``start`` stands to the reference, case ignored; see ``Site.ref``."""
    if contig is None:
        return Status.SKIP_NO_CONTIG
    if not _is_iupac(ref):
        return Status.SKIP_MALFORMED_ALLELE
    if start < 0 or start + len(ref) > reference.contigs[contig]:
        return Status.SKIP_OUT_OF_RANGE
    if not _is_plain(ref):
        return Status.SKIP_AMBIGUOUS_REF
    here = reference.fetch(Interval(contig, start, start + len(ref))).tobytes().decode("ascii").upper()
    if here == ref.upper():
        return Status.OK
    if any(h != r and h in "ACGT" for h, r in zip(here, ref.upper(), strict=True)):
        return Status.SKIP_REF_MISMATCH
    return Status.SKIP_REFERENCE_AMBIGUOUS


def _allele(
    record: VcfRecord,
    alt: str,
    ref: Status,
    contig: str | None,
    reference: Reference,
    window: int | None,
    step: int,
) -> Allele:
    if contig is None:
        return Allele(Status.SKIP_NO_CONTIG)
    if reason := _unscorable(alt):
        return Allele(reason)
    if not ref.scored:
        return Allele(ref)
    if alt.upper() == record.ref.upper():
        return Allele(Status.SKIP_ALT_EQUALS_REF)
    variant = Variant(contig, record.pos - 1, record.ref.upper(), alt.upper())
    if window is None:
        return Allele(Status.OK, variant)
    core = variant.trimmed()
    if max(len(core.ref), len(core.alt)) > longest_allele(window):
        return Allele(Status.SKIP_TOO_LONG)
    whole = place_window(reference, variant, window, step).whole
    return Allele(Status.OK if whole else Status.EDGE, variant)


def _unscorable(alt: str) -> Status | None:
    """Why an ALT could be scored against no reference at all; None for plain bases."""
    if _is_plain(alt):
        return None
    if alt == ".":
        return Status.SKIP_NO_ALT
    if alt == "*":
        return Status.SKIP_SPANNING_DELETION
    if "[" in alt or "]" in alt:
        return Status.SKIP_BREAKEND
    if alt.startswith("<") and alt.endswith(">"):
        return Status.SKIP_SYMBOLIC
    single = alt.removeprefix(".") if alt.startswith(".") else alt.removesuffix(".")
    if single != alt and _is_iupac(single):
        return Status.SKIP_BREAKEND
    return Status.SKIP_AMBIGUOUS_ALT if _is_iupac(alt) else Status.SKIP_MALFORMED_ALLELE


def _is_plain(allele: str) -> bool:
    return bool(allele) and set(allele) <= _PLAIN


def _is_iupac(allele: str) -> bool:
    return bool(allele) and set(allele) <= _CODES


_PLAIN = frozenset("ACGTacgt")
_CODES = frozenset(IUPAC + IUPAC.lower())
