import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pysam
import pysam.bcftools
import pytest

from genomamba.data.vcf import VcfReader, contig_lengths, info_value
from genomamba.errors import VariantFileError

HEADER = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=chr1,length=100>",
    "##contig=<assembly=x,ID=un>",
    '##INFO=<ID=A,Number=1,Type=String,Description="a">',
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
]
RECORDS = [
    "chr1\t3\trs1\ta\tC,<DEL>\t1e3\t.\tA=1.50;;B\t",
    "chr1\t2\t.\tAC\t.\t.\tq10\tA=x;A=y",
    "2\t0\t\tA\t*\t.\t.\t.",
]
RECORDS[0] = RECORDS[0].rstrip("\t")
TEXT = "".join(f"{line}\n" for line in [*HEADER, *RECORDS])


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def bgzip(path: Path, text: str) -> Path:
    with pysam.BGZFile(str(path), "wb") as out:
        out.write(text.encode())
    return path


def read(path: Path | str) -> list:
    with VcfReader(path) as reader:
        return list(reader)


@pytest.mark.parametrize(
    "form", ["plain", "gzip", "bgzip", "two gzip members", "crlf", "byte-order mark", "no last newline"]
)
def test_every_byte_comes_through_whatever_the_file_is_called(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.txt"
    if form == "gzip":
        write(path, gzip.compress(TEXT.encode()))
    elif form == "two gzip members":
        write(path, gzip.compress(TEXT[:150].encode()) + gzip.compress(TEXT[150:].encode()))
    elif form == "bgzip":
        bgzip(path, TEXT)
    else:
        write(
            path,
            {"crlf": TEXT.replace("\n", "\r\n"), "byte-order mark": "\ufeff" + TEXT}.get(
                form, TEXT.rstrip("\n") if form == "no last newline" else TEXT
            ),
        )
    with VcfReader(path) as reader:
        first, second = list(reader), list(reader)
        assert reader.header == HEADER
        assert reader.contigs == {"chr1": 100, "un": None}
    assert first == second
    assert [record.text for record in first] == RECORDS
    assert first[0][:7] == (6, "chr1", 3, "rs1", "a", ("C", "<DEL>"), "A=1.50;;B")
    assert first[2].pos == 0
    assert first[2].alts == ("*",)


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vcf", TEXT.encode() + b"chr1\t9\t\xff\xe9\tA\tC\t.\t.\t.\n")
    assert read(path)[-1].text.encode("utf-8", "surrogateescape") == b"chr1\t9\t\xff\xe9\tA\tC\t.\t.\t."


def test_bcf_is_decoded(tmp_path: Path) -> None:
    text = TEXT.replace("q10", "PASS").replace(";;B", "").replace("2\t0\t\t", "chr1\t5\t.\t").replace("A=x;A=y", ".")
    pysam.bcftools.view("-Ob", "-o", str(tmp_path / "x.bcf"), str(write(tmp_path / "x.vcf", text)), catch_stdout=False)
    records = read(tmp_path / "x.bcf")
    assert [(r.contig, r.pos, r.ref, r.alts, r.info) for r in records] == [
        ("chr1", 3, "a", ("C", "<DEL>"), "A=1.50"),
        ("chr1", 2, "AC", (".",), "."),
        ("chr1", 5, "A", ("*",), "."),
    ]
    whole = (tmp_path / "x.bcf").read_bytes()
    with pytest.raises(VariantFileError, match="end-of-file block"):
        read(write(tmp_path / "cut.bcf", whole[:-28]))


def test_stdin_and_pipes_can_be_gone_through_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(gzip.compress(TEXT.encode()))

    monkeypatch.setattr(sys, "stdin", Stdin)
    with VcfReader("-") as reader:
        assert reader.name == "<stdin>"
        assert [r.text for r in reader] == [r.text for r in reader] == RECORDS
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=pipe.write_bytes, args=(TEXT.encode(),))
    feeder.start()
    with VcfReader(pipe) as reader:
        assert [r.text for r in reader] == [r.text for r in reader] == RECORDS
    feeder.join()


GOOD = RECORDS[0] + "\n"
START = "".join(f"{line}\n" for line in HEADER)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        (GOOD, 1, "header is missing"),
        (">chr1\nACGT\n", 1, "header is missing"),
        ("\n".join(HEADER[:-1]) + "\n" + GOOD, 5, "no #CHROM line"),
        ("\n".join(HEADER[:-1]) + "\n", 4, "ends before its #CHROM"),
        ("##x\n#CHROM POS ID REF ALT QUAL FILTER INFO\n", 2, "spaces stand"),
        ("#CHROM\tPOS\tID\tREF\tALT\n", 1, "column names"),
        (START + GOOD + "\n" + GOOD, 7, "blank"),
        (START + GOOD + "\n", 7, "blank"),
        (START + GOOD.replace("\t", " "), 6, "spaces stand"),
        (START + GOOD + "chr1\t5\trs9\tA", 7, "4 columns where the header has 8"),
        (START + GOOD.rstrip("\n") + "\tGT\n", 6, "9 columns where the header has 8"),
        (START.replace("INFO\n", "INFO\tFORMAT\ts\n") + GOOD, 6, "8 columns where the header has 10"),
        (START + GOOD + "##late=1\n", 7, "header line stands among"),
        (START + GOOD.replace("\t3\t", "\t3.0\t"), 6, "POS=3.0"),
        (START + GOOD.replace("\t3\t", "\t1e8\t"), 6, "POS=1e8"),
        (START + GOOD.replace("\t3\t", "\t-3\t"), 6, "POS=-3"),
        (START + GOOD.replace("\t3\t", "\t²\t"), 6, "POS=²"),
        (START + GOOD.replace("\t3\t", f"\t{'9' * 5000}\t"), 6, "POS=9"),
        (START + GOOD.replace("chr1", ""), 6, "name is empty"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    path = write(tmp_path / "bad.vcf", text)
    with pytest.raises(VariantFileError) as caught:
        read(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gzip", "bgzip", "bgzip at a block's edge", "bad checksum"])
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    long = START + "".join(f"chr1\t{n}\t{os.urandom(6).hex()}\tA\tC\t.\t.\t.\n" for n in range(1, 8000))
    path = tmp_path / "x.vcf.gz"
    whole = bgzip(path, long).read_bytes() if kind.startswith("bgzip") else gzip.compress(long.encode())
    if kind == "bad checksum":
        damaged = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    elif kind == "bgzip at a block's edge":
        damaged = whole[: int.from_bytes(whole[16:18], "little") + 1]  # BSIZE of the first block
        assert gzip.decompress(damaged)  # nothing but the end-of-file block tells that it is cut
    else:
        damaged = whole[: len(whole) // 2]
    with pytest.raises(VariantFileError, match=r"cut|damaged"):
        read(write(path, damaged))


@pytest.mark.parametrize("missing", ["nowhere.vcf", "."])
def test_what_cannot_be_opened_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(VariantFileError, match=r"no such file|cannot be read"):
        read(tmp_path / missing)


@pytest.mark.parametrize(
    ("info", "key", "value"),
    [
        ("A=1;AB=2;B", "A", "1"),
        ("A=1;AB=2;B", "AB", "2"),
        ("A=1;AB=2;B", "B", ""),
        ("A=1;AB=2;B", "C", None),
        ("XA=1", "A", None),
        ("XA=A;B=A=3", "A", None),
        ("B=A=3", "B", "A=3"),
        (".", "A", None),
    ],
)
def test_info_value(info: str, key: str, value: str | None) -> None:
    assert info_value(info, key) == value


def test_contig_lengths() -> None:
    assert contig_lengths(
        ["##contig=<ID=a,length=3,md5=x>", "##contig=<length=4,ID=b>", "##contig=<ID=c>", "##x=1"]
    ) == {
        "a": 3,
        "b": 4,
        "c": None,
    }
