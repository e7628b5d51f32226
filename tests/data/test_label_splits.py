from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genomamba.data import label_splits, pairs
from genomamba.data.label_splits import Splits, check_leakage, split_by_group
from genomamba.data.labels import LabelledVariant, LabelledVariants
from genomamba.data.reference import Reference
from genomamba.errors import LabelError
from genomamba.genome.variant import Fetch, Variant, normalise


def labelled(*rows: tuple[str, int]) -> LabelledVariants:
    items = [
        LabelledVariant(Variant("chr1", 10 * line, "A", "C"), label, gene, "", line)
        for line, (gene, label) in enumerate(rows, start=1)
    ]
    return LabelledVariants("in.vcf", items, Counter(), Counter())


FOUND = labelled(
    ("BRCA1", 0), ("BRCA2", 1), ("TP53", 0), ("BRCA1", 1), ("PALB2", 0), ("TP53", 1), ("BRCA2", 0), ("", 1), ("ATM", 1)
)


def test_whole_genes_go_to_one_split_each() -> None:
    splits = split_by_group(FOUND, ["BRCA2", "PALB2"], ["TP53"], ["BRCA1"])
    assert [[item.line for item in split] for split in splits] == [[2, 5, 7], [3, 6], [1, 4], [8, 9]]


def test_a_split_may_be_left_out() -> None:
    assert split_by_group(FOUND, ["BRCA2"], ["TP53"], []).test == []


@pytest.mark.parametrize(
    ("train", "valid", "test", "words"),
    [
        (["BRCA2"], ["TP53"], ["BRCA3"], r"test=BRCA3: no labelled variant has this gene; there is BRCA"),
        (["BRCA2"], ["TP53"], ["x"], r"there is BRCA1, BRCA2, TP53, PALB2, ATM$"),
        (["BRCA2"], ["BRCA1"], ["BRCA1"], r"test=BRCA1: the gene stands in valid too"),
        (["BRCA2"], ["PALB2"], ["BRCA1"], r"split=valid: the split has 0 variants of class 1 and 1 of class 0"),
        (["BRCA2"], ["TP53"], ["ATM"], r"split=test: the split has 1 variants of class 1 and 0 of class 0"),
    ],
)
def test_splits_that_cannot_be(train: list[str], valid: list[str], test: list[str], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        split_by_group(FOUND, train, valid, test)


def test_where_no_variant_names_a_gene_that_is_said() -> None:
    with pytest.raises(LabelError, match=r"train=BRCA2: .* this gene; none names any; add a column or INFO key for it"):
        split_by_group(labelled(("", 1), ("", 0)), ["BRCA2"], [], [])


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    path = tmp_path / "r.fa"
    path.write_text(">chr1\n" + "ACGT" * 20 + "C" * 20 + "ACGT" * 20 + ">chr2\n".join(["\n", "ACGT" * 45 + "\n"]))
    return Reference.open(path)


def put(line: int, start: int, ref: str, alt: str, contig: str = "chr1") -> LabelledVariant:
    return LabelledVariant(Variant(contig, start, ref, alt), 1, "", "", line)


SNV = put(1, 40, "A", "C")


@pytest.mark.parametrize(
    ("train", "valid", "test", "words"),
    [
        (
            [SNV],
            [],
            [put(9, 40, "A", "C")],
            r"train \(line 1\) and test \(line 9\) hold the same variant: .* 2 variants",
        ),
        ([SNV], [], [put(9, 39, "TA", "TC")], "hold the same variant"),
        ([put(1, 80, "C", "CC")], [put(2, 99, "C", "CC")], [], r"train \(line 1\) and valid \(line 2\) hold the same"),
        ([SNV], [], [put(9, 46, "G", "C")], r"windows of 8 bases overlap: chr1:41:A>C and chr1:47:G>C; 2 variants"),
        ([], [SNV, put(2, 44, "A", "C")], [put(9, 46, "G", "C")], r"valid \(line 2\) and test.*; 3 variants"),
        ([put(1, 44, "A", "C")], [put(2, 41, "C", "A")], [put(9, 46, "G", "C")], r"; 3 variants"),
        ([put(1, 20, "ACGTACGT" * 3, "A"), put(2, 28, "A", "C")], [], [put(9, 35, "T", "A")], r"line 1.*line 9"),
    ],
)
def test_leakage(
    reference: Reference,
    train: list[LabelledVariant],
    valid: list[LabelledVariant],
    test: list[LabelledVariant],
    words: str,
) -> None:
    with pytest.raises(LabelError, match=words):
        check_leakage(Splits(train, valid, test, [SNV]), reference, 8, "in.vcf")


def test_windows_side_by_side_share_nothing(tmp_path: Path) -> None:
    bases = np.random.default_rng(0).choice(list("ACGT"), 300)
    one, two = "".join(bases[:200]), "".join(bases[200:])
    turned = one[::-1].translate(str.maketrans("ACGT", "TGCA"))
    path = tmp_path / "random.fa"
    path.write_text(f">chr1\n{one}\n>chr2\n{two}\n>turned\n{turned}\n")
    reference = Reference.open(path)

    def at(start: int, contig: str = "chr1") -> LabelledVariant:
        base = {"chr1": one, "chr2": two, "turned": turned}[contig][start]
        return put(start, start, base, "A" if base != "A" else "C", contig)

    for train, test in (
        ([at(40)], [at(55)]),
        ([at(40), at(44)], [at(59)]),
        ([at(40)], [at(40, "chr2")]),
        ([at(40, "chr2")], [at(140), at(60, "chr2")]),
        ([at(40)], [at(160, "turned")]),
    ):
        check_leakage(Splits(train, [], test, [at(41)]), reference, 16, "in.vcf")
    message = (
        r"train \(line 40\) and test \(line 159\) hold variants whose windows of 16 bases are one sequence, or its "
        r"reverse complement: chr1:41:.* and turned:160:.*; 2 variants are concerned"
    )
    with pytest.raises(LabelError, match=message):
        check_leakage(Splits([at(40)], [], [at(159, "turned")], []), reference, 16, "in.vcf")


def test_spellings_of_a_change_in_a_long_repeat_are_one_variant(tmp_path: Path) -> None:
    """The repeat is longer than the window, which then stands at its middle; the message names the VCF spelling."""
    path = tmp_path / "repeat.fa"
    path.write_text(">chr1\n" + "GATTACCA" * 4 + "CT" * 30 + "GATTACCA" * 4 + "\n")
    reference = Reference.open(path)
    left, right, other = put(1, 31, "ACT", "A"), put(2, 89, "TCT", "T"), put(3, 89, "TCTCT", "T")
    with pytest.raises(LabelError, match=r"hold the same variant: chr1:32:ACT>A and chr1:32:ACT>A; 2 variants"):
        check_leakage(Splits([left], [], [right], []), reference, 8, "in.vcf")
    with pytest.raises(LabelError, match=r"windows of 8 bases overlap: chr1:32:ACT>A and chr1:32:ACTCT>A"):
        check_leakage(Splits([left], [], [other], []), reference, 8, "in.vcf")


def test_each_variant_is_normalised_once(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Variant] = []

    def counted(variant: Variant, fetch: Fetch) -> Variant:
        seen.append(variant)
        return normalise(variant, fetch)

    monkeypatch.setattr(pairs, "normalise", counted)
    monkeypatch.setattr(label_splits, "normalise", counted)
    apart = Splits([put(1, 20, "A", "C")], [], [put(2, 85, "C", "G")], [])
    check_leakage(apart, reference, 8, "in.vcf")
    assert seen == [item.variant for item in (*apart.train, *apart.test)]
