import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.vcf import VcfReader
from genomamba.data.vcf_write import VcfWriter, annotated_header, with_info
from genomamba.errors import OutputError

HEADER = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=1,length=500>",
    "##GM=old",
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
]
EXTRA = ["##GM=new", '##INFO=<ID=GM_LLR,Number=A,Type=Float,Description="llr">']
LINES = ["1\t5\trs1\tA\tC,G\t1e3\tq10\tX=1.50;Y", "1\t5\t.\ta\tT\t.\t.\t.", "2\t9\t.\tN\t<DEL>\t.\t.\tGM_LLR=7;Z=é"]
INFO = [{"GM_LLR": "0.5,-1"}, {"GM_LLR": "."}, {"GM_LLR": "."}]
WANTED = [
    "1\t5\trs1\tA\tC,G\t1e3\tq10\tX=1.50;Y;GM_LLR=0.5,-1",
    "1\t5\t.\ta\tT\t.\t.\tGM_LLR=.",
    "2\t9\t.\tN\t<DEL>\t.\t.\tZ=é;GM_LLR=.",
]


def source(folder: Path, lines: list[str] = LINES) -> Path:
    path = folder / "in.vcf"
    path.write_text("".join(f"{line}\n" for line in [*HEADER, *lines]), encoding="utf-8")
    return path


def copy(path: Path, out: Path | str, *, force: bool = False, info: list[dict[str, str]] = INFO) -> VcfWriter:
    with (
        VcfReader(path) as reader,
        VcfWriter(out, reader.header, EXTRA, contigs={"1": 500, "2": 90}, force=force) as writer,
    ):
        for record, added in zip(reader, info, strict=False):
            writer.write(record, added)
    return writer


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.VCF.BGZ"])
def test_records_are_kept_to_the_byte(tmp_path: Path, name: str) -> None:
    writer = copy(source(tmp_path), tmp_path / name)
    with VcfReader(tmp_path / name) as reader:
        assert [record.text for record in reader] == WANTED
        assert reader.header == [HEADER[0], HEADER[1], "##contig=<ID=2,length=90>", *EXTRA, HEADER[3]]
    assert writer.note is None
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.vcf", name} | ({f"{name}.tbi"} if name != "out.vcf" else set())


def test_writing_again_replaces_the_values(tmp_path: Path) -> None:
    copy(source(tmp_path), tmp_path / "once.vcf")
    copy(tmp_path / "once.vcf", tmp_path / "twice.vcf")
    assert (tmp_path / "twice.vcf").read_bytes() == (tmp_path / "once.vcf").read_bytes()


@pytest.mark.parametrize(("pos", "suffix"), [(9, "tbi"), (1 << 29, "csi")])
def test_the_index_finds_the_records(tmp_path: Path, pos: int, suffix: str) -> None:
    out = tmp_path / "out.vcf.gz"
    copy(source(tmp_path, [LINES[0], f"2\t{pos}\tx\tA\tC\t.\t.\t."]), out)
    index = Path(f"{out}.{suffix}")
    assert index.stat().st_mtime_ns >= out.stat().st_mtime_ns  # htslib warns of an index older than its file
    with pysam.TabixFile(str(out), index=str(index)) as file:
        assert [row.split("\t")[2] for row in file.fetch("2", pos - 1, pos)] == ["x"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["1\t9\t.\tA\tC\t.\t.\t.", "1\t8\t.\tA\tC\t.\t.\t."], "not sorted by position (line 6)"),
        (
            ["1\t9\t.\tA\tC\t.\t.\t.", "2\t8\t.\tA\tC\t.\t.\t.", "1\t10\t.\tA\tC\t.\t.\t."],
            "line 7 goes back to contig 1",
        ),
        ([f"1\t{1 << 40}\t.\tA\tC\t.\t.\t."], "too high"),
    ],
)
def test_what_cannot_be_indexed_is_still_written(tmp_path: Path, lines: list[str], reason: str) -> None:
    out = tmp_path / "out.vcf.gz"
    copy(source(tmp_path), out)
    writer = copy(source(tmp_path, lines), out, force=True)
    assert reason in str(writer.note)
    with VcfReader(out) as reader:
        assert [record.text.rpartition("\t")[0] for record in reader] == [line.rpartition("\t")[0] for line in lines]
    assert {path.name for path in tmp_path.iterdir()} == {"in.vcf", "out.vcf.gz"}  # the old index is gone too


DECLARED = [
    '##INFO=<ID=X,Number=1,Type=String,Description="x">',
    '##INFO=<ID=Y,Number=0,Type=Flag,Description="y">',
    '##INFO=<ID=Z,Number=1,Type=String,Description="z">',
    '##FILTER=<ID=q10,Description="q">',
]


def declared_source(folder: Path) -> Path:
    path = source(folder)
    path.write_text(path.read_text(encoding="utf-8").replace("##GM=old", "\n".join(DECLARED)), encoding="utf-8")
    return path


def test_bcf_holds_the_same_records(tmp_path: Path) -> None:
    copy(declared_source(tmp_path), tmp_path / "out.bcf")
    with VcfReader(tmp_path / "out.bcf") as reader:
        assert [record.text for record in reader] == [line.replace("1e3", "1000") for line in WANTED]
        assert "##GM=new" in reader.header
    assert {path.name for path in tmp_path.iterdir()} == {"in.vcf", "out.bcf"}


def test_bcf_of_undeclared_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"lacks ##FILTER=<ID=q10> and 3 more"):
        copy(source(tmp_path), tmp_path / "out.bcf")
    assert {path.name for path in tmp_path.iterdir()} == {"in.vcf"}


def test_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdout:
        buffer = io.BytesIO()

    monkeypatch.setattr(sys, "stdout", Stdout)
    copy(source(tmp_path), "-")
    assert Stdout.buffer.getvalue().decode().splitlines()[-3:] == WANTED


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_an_error_half_way_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    path = source(tmp_path, [*LINES[:2], "2\tx\t.\tA\tC\t.\t.\t."])
    out = tmp_path / name
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        copy(path, out)
    with pytest.raises(Exception, match="POS=x"):
        copy(path, out, force=True)
    assert out.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"in.vcf", name}


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.write_bytes(b"old")
    path = source(tmp_path, [f"1\t{n}\t{os.urandom(20).hex()}\tA\tC\t.\t.\t." for n in range(1, 9000)])
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="could not be written") as caught:
            copy(path, out, force=True, info=[{}] * 9000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value).startswith(f"{out}: ")
    assert out.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"in.vcf", name}


@pytest.mark.parametrize("name", ["out.tsv", "out.gz", "out"])
def test_an_unknown_extension_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="extension"):
        copy(source(tmp_path), tmp_path / name)


@pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_bcftools_reads_it_without_a_word(tmp_path: Path, name: str) -> None:
    path = declared_source(tmp_path)
    copy(path, tmp_path / name)
    seen = subprocess.run(
        ["bcftools", "view", "-H", "-i", "GM_LLR>0.4", str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    assert seen.stderr == ""
    assert [line.split("\t")[2] for line in seen.stdout.splitlines()] == ["rs1"]


@pytest.mark.parametrize(
    ("old", "added", "new"),
    [
        (".", {"A": "1"}, "A=1"),
        ("", {"A": "1"}, "A=1"),
        ("B=2", {"A": "1"}, "B=2;A=1"),
        ("A=0;B=2;A", {"A": "1"}, "B=2;A=1"),
        ("AA=0;B=A", {"A": "1", "F": ""}, "AA=0;B=A;A=1;F"),
        (".", {}, "."),
        ("B;;C=1;", {}, "B;;C=1;"),
    ],
)
@pytest.mark.parametrize("rest", ["", "\tGT:DP\t0/1:3\t./.:."])
def test_with_info(old: str, added: dict[str, str], new: str, rest: str) -> None:
    assert with_info(f"1\t2\t.\tA\tC\t.\t.\t{old}{rest}", added) == f"1\t2\t.\tA\tC\t.\t.\t{new}{rest}"


KEY = st.sampled_from(["A", "AB", "B", "GM_LLR"])


@given(
    st.lists(st.tuples(KEY, st.sampled_from(["", "=1", "=A=B"])), max_size=4),
    st.dictionaries(KEY, st.just("9"), max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_annotating_twice_is_annotating_once(entries: list[tuple[str, str]], added: dict[str, str]) -> None:
    line = "1\t2\t.\tA\tC\t.\t.\t" + (";".join(map("".join, entries)) or ".")
    once = with_info(line, added)
    assert with_info(once, added) == once


def test_a_header_without_fileformat_gets_one() -> None:
    assert annotated_header([HEADER[-1]], ["##a=1"], {"x": None}) == [
        "##fileformat=VCFv4.2",
        "##contig=<ID=x>",
        "##a=1",
        HEADER[-1],
    ]
