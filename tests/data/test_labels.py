import gzip
from collections import Counter
from pathlib import Path

import pytest

from genomamba.data.labels import (
    ABSENT,
    ONE_FOR_SEVERAL,
    LabelledVariant,
    first_consequence,
    first_gene,
    read_label_mapping,
    read_labelled_table,
    read_labelled_vcf,
)
from genomamba.data.reference import Reference
from genomamba.data.table import VariantTable
from genomamba.data.variants import Status
from genomamba.data.vcf import VcfReader
from genomamba.errors import LabelError, VariantFileError
from genomamba.genome.variant import Variant

HEADER = """##fileformat=VCFv4.2
##INFO=<ID=CLNSIG,Number=.,Type=String,Description="c">
##INFO=<ID=CLASS,Number=A,Type=Integer,Description="c">
#CHROM	POS	ID	REF	ALT	QUAL	FILTER	INFO
"""
MC = "SO:0001583|missense_variant,SO:0001627|intron_variant"
RECORDS = [
    ("1", "A", "C", f"CLNSIG=Pathogenic;GENEINFO=G1:1|G2:2;MC={MC}"),
    ("2", "C", "CT", "CLNSIG=Benign/Likely_benign;GENEINFO=G2:2;CLASS=1"),
    ("3", "G", "T", "CLNSIG=Uncertain_significance;GENEINFO=G2:2"),
    ("4", "T", "A", "GENEINFO=G2:2;CLASS=0"),
    ("5", "A", "N", "CLNSIG=Pathogenic"),
    ("6", "G", "T", "CLNSIG=Likely_benign"),
    ("7", "G", "A,T", "CLNSIG=Pathogenic;CLASS=0,1"),
    ("8", "T", "A,C", "CLASS=2,."),
]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    path = tmp_path / "r.fa"
    path.write_text(">chr1\n" + "ACGT" * 20 + "\n")
    return Reference.open(path)


def vcf(folder: Path, records: list[tuple[str, str, str, str]] = RECORDS) -> Path:
    path = folder / "in.vcf"
    path.write_text(HEADER + "".join(f"1\t{pos}\t.\t{ref}\t{alt}\t.\t.\t{info}\n" for pos, ref, alt, info in records))
    return path


def test_clinvar_labels(tmp_path: Path, reference: Reference) -> None:
    with VcfReader(vcf(tmp_path)) as reader:
        found = read_labelled_vcf(reader, reference, {"1": "chr1"})
    assert found.items == [
        LabelledVariant(Variant("chr1", 0, "A", "C"), 1, "G1", "missense_variant", 5),
        LabelledVariant(Variant("chr1", 1, "C", "CT"), 0, "G2", "", 6),
    ]
    assert [item.type for item in found.items] == ["SNV", "INDEL"]
    assert found.unlabelled == Counter({"Uncertain_significance": 1, ABSENT: 3, ONE_FOR_SEVERAL: 2})
    assert found.skipped == {Status.SKIP_AMBIGUOUS_ALT: 1, Status.SKIP_REF_MISMATCH: 1}


def test_a_key_with_one_value_for_each_alt(tmp_path: Path, reference: Reference) -> None:
    with VcfReader(vcf(tmp_path)) as reader:
        found = read_labelled_vcf(reader, reference, {"1": "chr1"}, key="CLASS")
    assert [(item.variant.pos, item.variant.alt, item.label) for item in found.items] == [
        (2, "CT", 1),
        (4, "A", 0),
        (7, "A", 0),
        (7, "T", 1),
    ]
    assert found.unlabelled == Counter({ABSENT: 4, "2": 1, ".": 1})


@pytest.mark.parametrize(
    ("key", "words"),
    [("CLNSIGG", r"INFO=CLNSIGG: no record has this INFO key; the header declares CLNSIG "), ("X", "CLNSIG, CLASS")],
)
def test_a_key_that_no_record_has(tmp_path: Path, reference: Reference, key: str, words: str) -> None:
    with VcfReader(vcf(tmp_path)) as reader, pytest.raises(LabelError, match=words):
        read_labelled_vcf(reader, reference, {"1": "chr1"}, key=key)


def test_an_input_of_a_header_alone(tmp_path: Path, reference: Reference) -> None:
    nothing = vcf(tmp_path, [])
    with VcfReader(nothing) as reader, pytest.raises(LabelError, match=f"{nothing}: there are no records in it; "):
        read_labelled_vcf(reader, reference, {})
    table = tmp_path / "t.tsv"
    table.write_text("chrom\tpos\tref\talt\tlabel\n")
    with pytest.raises(LabelError, match=f"{table}: there are no records in it; "):
        read_labelled_table(VariantTable(table), reference, {})


def test_values_of_which_none_is_a_label(tmp_path: Path, reference: Reference) -> None:
    with VcfReader(vcf(tmp_path)) as reader, pytest.raises(LabelError, match=r"found .*Uncertain_significance"):
        read_labelled_vcf(reader, reference, {"1": "chr1"}, labels={"bad": 1, "good": 0})


@pytest.mark.parametrize(
    ("info", "gene", "consequence"),
    [
        (f"A=1;GENEINFO=BRCA1:672|LOC1:5;MC={MC}", "BRCA1", "missense_variant"),
        ("GENEINFO=TP53:7157;MC=SO:0001587|nonsense", "TP53", "nonsense"),
        (".", "", ""),
    ],
)
def test_clinvar_columns(info: str, gene: str, consequence: str) -> None:
    assert (first_gene(info), first_consequence(info)) == (gene, consequence)


TABLE = "chrom,pos,ref,alt,label,gene\nchr1,1,A,C,1,G1\nchr1,2,C,CT,Benign,G2\nchr1,3,A,C,0,\n"


@pytest.mark.parametrize("form", ["csv", "tsv", "gzip", "capitals", "quoted", "crlf"])
def test_tables(tmp_path: Path, reference: Reference, form: str) -> None:
    text = {
        "tsv": TABLE.replace(",", "\t"),
        "capitals": TABLE.replace("chrom,pos,ref", "#CHROM,POS,Ref"),
        "quoted": TABLE.replace("C,1,G1", '"C","1",G1'),
        "crlf": TABLE.replace("\n", "\r\n"),
    }.get(form, TABLE)
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    found = read_labelled_table(VariantTable(path), reference, {"chr1": "chr1"})
    assert found.items == [
        LabelledVariant(Variant("chr1", 0, "A", "C"), 1, "G1", "", 2),
        LabelledVariant(Variant("chr1", 1, "C", "CT"), 0, "G2", "", 3),
    ]
    assert found.skipped == {Status.SKIP_REF_MISMATCH: 1}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (TABLE.replace("1,G1", "NaN,G1"), LabelError, ":2: label=NaN: this is no label"),
        (TABLE.replace("Benign", "Uncertain_significance"), LabelError, ":3: label=Uncertain_significance"),
        (TABLE.replace("Benign", ""), LabelError, ":3: label=: this is no label"),
        (TABLE.replace("label", "labell"), LabelError, "label=label: there is no such column; there is labell"),
        (TABLE.replace("pos", "position"), VariantFileError, ":1: pos: the column is missing"),
        (TABLE.replace("gene", "ref"), VariantFileError, ":1: ref: the column is there twice"),
        (TABLE.replace("chr1,2", "chr1,2.0"), VariantFileError, ":3: pos=2.0: pos is not a position"),
        (TABLE.replace(",Benign", ""), VariantFileError, ":3: the row has 5 columns where the header has 6"),
        (TABLE + "\n", VariantFileError, ":5: the row has 0 columns"),
        (TABLE.replace("CT,", '"CT,'), VariantFileError, "cannot be read"),
    ],
)
def test_bad_rows(tmp_path: Path, reference: Reference, text: str, error: type[Exception], words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(error) as caught:
        read_labelled_table(VariantTable(path), reference, {"chr1": "chr1"})
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_mapping_of_ones_own(tmp_path: Path, reference: Reference) -> None:
    path = tmp_path / "map.tsv"
    path.write_text("Uncertain_significance\t1\nPathogenic\t0\n")
    with VcfReader(vcf(tmp_path)) as reader:
        found = read_labelled_vcf(reader, reference, {"1": "chr1"}, labels=read_label_mapping(path))
    assert [(item.variant.pos, item.label) for item in found.items] == [(1, 0), (3, 1)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a\t1\nb\t2\n", 2, "maps nothing"),
        ("a 1\n", 1, "maps nothing"),
        ("a\t1\nb\t0\na\t0\n", 3, "label=a: the value has two classes"),
    ],
)
def test_a_bad_mapping(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "map.tsv"
    path.write_text(text)
    with pytest.raises(LabelError, match=words) as caught:
        read_label_mapping(path)
    assert caught.value.line == line
