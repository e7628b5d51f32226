from pathlib import Path

import pytest

from genomamba.data.reference import Reference
from genomamba.data.variants import Allele, Status, classify
from genomamba.data.vcf import VcfRecord
from genomamba.genome.variant import Variant

#             1234567890123456789012345678901234567890
SEQUENCE = "ACGTacgtNNRYACGTACGTAAAAAAACGGGTTTTACGTA"


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    path = tmp_path / "r.fa"
    path.write_text(f">chr1\n{SEQUENCE}\n")
    return Reference.open(path)


def record(pos: int, ref: str, alt: str, contig: str = "chr1") -> VcfRecord:
    return VcfRecord(1, contig, pos, ".", ref, tuple(alt.split(",")), ".", "")


@pytest.mark.parametrize(
    ("pos", "ref", "alt", "status"),
    [
        (13, "A", "G", Status.OK),
        (13, "a", "g", Status.OK),
        (5, "ACG", "TTT", Status.OK),
        (21, "AAAAAAAC", "A", Status.OK),
        (13, "A", "ACCCC", Status.OK),
        (40, "A", "C", Status.OK),
        (13, "A", "A", Status.SKIP_ALT_EQUALS_REF),
        (13, "A", "a", Status.SKIP_ALT_EQUALS_REF),
        (13, "C", "G", Status.SKIP_REF_MISMATCH),
        (14, "A", "G", Status.SKIP_REF_MISMATCH),
        (13, "AG", "A", Status.SKIP_REF_MISMATCH),
        (13, "A", "<DEL>", Status.SKIP_SYMBOLIC),
        (13, "A", "<INS:ME:ALU>", Status.SKIP_SYMBOLIC),
        (13, "A", "*", Status.SKIP_SPANNING_DELETION),
        (13, "A", ".", Status.SKIP_NO_ALT),
        (13, "A", "A[chr2:10[", Status.SKIP_BREAKEND),
        (13, "A", "]chr2:10]A", Status.SKIP_BREAKEND),
        (13, "A", "A.", Status.SKIP_BREAKEND),
        (13, "A", ".A", Status.SKIP_BREAKEND),
        (13, "A", "-", Status.SKIP_MALFORMED_ALLELE),
        (13, "A", "", Status.SKIP_MALFORMED_ALLELE),
        (13, "A", "U", Status.SKIP_MALFORMED_ALLELE),
        (13, "A", "A/C", Status.SKIP_MALFORMED_ALLELE),
        (13, "A", "<DEL", Status.SKIP_MALFORMED_ALLELE),
        (13, "A", "N", Status.SKIP_AMBIGUOUS_ALT),
        (13, "A", "Ry", Status.SKIP_AMBIGUOUS_ALT),
        (9, "N", "A", Status.SKIP_AMBIGUOUS_REF),
        (13, "R", "A", Status.SKIP_AMBIGUOUS_REF),
        (13, "-", "A", Status.SKIP_MALFORMED_ALLELE),
        (13, ".", "A", Status.SKIP_MALFORMED_ALLELE),
        (13, "", "A", Status.SKIP_MALFORMED_ALLELE),
        (9, "A", "C", Status.SKIP_REFERENCE_AMBIGUOUS),
        (11, "A", "C", Status.SKIP_REFERENCE_AMBIGUOUS),
        (8, "TA", "T", Status.SKIP_REFERENCE_AMBIGUOUS),
        (8, "GA", "G", Status.SKIP_REF_MISMATCH),
        (0, "A", "C", Status.SKIP_OUT_OF_RANGE),
        (41, "A", "C", Status.SKIP_OUT_OF_RANGE),
        (40, "AC", "A", Status.SKIP_OUT_OF_RANGE),
        (10**17, "A", "C", Status.SKIP_OUT_OF_RANGE),
    ],
)
def test_statuses(reference: Reference, pos: int, ref: str, alt: str, status: Status) -> None:
    (allele,) = classify(record(pos, ref, alt), "chr1", reference).alleles
    assert allele.status is status
    assert status.scored == (allele.variant is not None)
    if allele.variant:
        assert allele.variant == Variant("chr1", pos - 1, ref.upper(), alt.upper())


def test_each_alt_of_a_record_has_its_own(reference: Reference) -> None:
    site = classify(record(13, "A", "C,<DEL>,A,GT"), "chr1", reference)
    assert [allele.status for allele in site.alleles] == [
        Status.OK,
        Status.SKIP_SYMBOLIC,
        Status.SKIP_ALT_EQUALS_REF,
        Status.OK,
    ]
    assert site.alleles[3].variant == Variant("chr1", 12, "A", "GT")


def test_ref_is_judged_where_there_is_no_alt(reference: Reference) -> None:
    assert classify(record(13, "A", "."), "chr1", reference).ref is Status.OK
    assert classify(record(13, "C", "<DEL>"), "chr1", reference).ref is Status.SKIP_REF_MISMATCH


def test_a_contig_that_the_reference_lacks(reference: Reference) -> None:
    assert classify(record(13, "A", "C,*"), None, reference).alleles == (
        Allele(Status.SKIP_NO_CONTIG),
        Allele(Status.SKIP_NO_CONTIG),
    )


@pytest.mark.parametrize(
    ("pos", "ref", "alt", "status"),
    [
        (15, "G", "C", Status.OK),  # its window is [11, 18)
        (4, "T", "C", Status.OK),  # [0, 7)
        (3, "G", "C", Status.EDGE),  # [-1, 6)
        (37, "C", "G", Status.OK),  # [33, 40)
        (38, "G", "C", Status.EDGE),  # [34, 41)
        (21, "AAAAA", "A", Status.OK),
        (21, "AAAAAA", "A", Status.SKIP_TOO_LONG),
        (13, "A", "ACCCC", Status.OK),
        (13, "A", "ACCCCC", Status.SKIP_TOO_LONG),
        (13, "ACGTACGT", "ACGTACGA", Status.OK),  # one base changes, however long the alleles are
    ],
)
def test_what_a_window_of_eight_allows(reference: Reference, pos: int, ref: str, alt: str, status: Status) -> None:
    (allele,) = classify(record(pos, ref, alt), "chr1", reference, window=8).alleles
    assert allele.status is status
