"""Malformed references, through the command line: each is read as meant, or refused in one line with its place."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import RunCli

PROTEIN = b">sp|P38398|BRCA1\nMDLSALRVEEVQNVINAMQKILECPICLELIKEPVSTKCDHIFCKFCMLKLLNQKKGPSQCPLC\n"

REFUSED = {
    "stop sign": (b">a\nACGT\nAC*T\n", 3, "residue=*: a gap or stop sign, in record a"),  # 3
    "gap": (b">a\nAC-T\n", 2, "residue=-: a gap or stop sign"),
    "dot": (b">a\nAC.T\n", 2, "residue=.: a gap or stop sign"),
    "RNA": (b">a\nACGT\n>b\nACGU\n", 4, "residue=U: U in what should be DNA, in record b; pass --rna"),  # 4
    "protein": (PROTEIN, 2, "this looks like protein (L 1"),  # 5
    "two records of one name": (b">a x\nAC\n>b\nAC\n>a y\nGT\n", 5, "name=a: two records have this name"),  # 7
    "CR only": (b">a\rACGT\r>b\rACGT\r", 1, "line ends are CR only"),  # 9
    "ragged line": (b">a\nACGT\nAC\nACGT\n", 3, "the line's length differs"),  # 11
    "blank line": (b">a\nACGT\n\nACGT\n", 3, "a blank line within a record"),
    "NUL": (b">a\nAC\0T\n", 2, "residue=0x00: white space or NUL"),  # 13
    "space": (b">a\nAC T\n", 2, "residue=0x20: white space or NUL"),
    "missing line end": (b">a\nACGT>b\nACGT\n", 2, "residue=>: '>' within a line of sequence"),
    "UTF-16": ("\ufeff>a\nACGT\n".encode("utf-16-le"), 1, "the text is UTF-16"),  # 14
    "FASTQ": (b"@r\nACGT\n+\nIIII\n", 1, "this is FASTQ"),  # 15
    "plain gzip": (gzip.compress(b">a\nACGT\n", mtime=0), None, "plain gzip, where bgzip is needed"),  # 20
    "empty file": (b"", None, "the file is empty"),
    "only empty records": (b">a\n>b\n", None, "every record is empty"),
    "no FASTA": (b"hello\n", 1, "sequence before the first header"),
}

READ = {
    "soft-masked": (b">a\nACgtn\n", ["5 bases", "N 1; soft-masked 3; other IUPAC codes 0"]),  # 1
    "IUPAC": (b">a\nACRYN\n", ["N 1; soft-masked 0; other IUPAC codes 2"]),  # 2
    "empty record": (b">a\n>b\nACGT\n", ["2 contigs, 4 bases", "empty records: a"]),  # 6
    "CRLF": (b">a\r\nACGT\r\n", ["4 bases", "CRLF line ends: 2"]),  # 8
    "no last line end": (b">a\nACGT\nAC", ["6 bases"]),  # 10
    "blank lines at the end": (b">a\nACGT\n\n\n", ["4 bases", "blank lines after a record: 2"]),  # 12
    "byte-order mark": (b"\xef\xbb\xbf>a\nACGT\n", ["4 bases", "byte-order mark: 1"]),  # 14
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(run_cli: RunCli, tmp_path: Path, name: str) -> None:
    data, line, words = REFUSED[name]
    path = tmp_path / "genome.fa"
    path.write_bytes(data)
    result = run_cli("index", path)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert words in result.err
    assert "; " in result.err
    assert result.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["genome.fa"]


@pytest.mark.parametrize("name", READ)
def test_read_as_meant_and_counted(run_cli: RunCli, tmp_path: Path, name: str) -> None:
    data, lines = READ[name]
    path = tmp_path / "genome.fa"
    path.write_bytes(data)
    result = run_cli("index", path)
    assert result.code == 0
    for line in lines:
        assert line in result.out
    assert f"index {path}.gmi" in result.out


def test_rna_on_request(run_cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "genome.fa"
    path.write_bytes(b">a\nACGU\n")
    assert "U read as T: 1" in run_cli("index", path, "--rna").out
    assert run_cli("index", path).code == 2


def test_what_is_not_there(run_cli: RunCli, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.fa", "no such file"), (tmp_path, "it is a folder; give a file")):
        result = run_cli("index", path)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"{path}: {words}")


@pytest.fixture
def read_only(run_cli: RunCli) -> Iterator[Path]:
    """A folder that this process cannot write to, even where the tests are run by root."""
    folder = Path(tempfile.mkdtemp())
    (folder / "genome.fa").write_bytes(b">a\nACGT\n")
    assert run_cli("index", folder / "genome.fa").code == 0  # an ordinary user may not see root's Python: import now
    (folder / "genome.fa.gmi").unlink()
    (folder / "cache").mkdir()
    (folder / "cache").chmod(0o777)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder(run_cli: RunCli, read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # 24
    monkeypatch.setenv("GENOMAMBA_CACHE", str(read_only / "cache"))
    result = run_cli("index", read_only / "genome.fa")
    assert result.code == 0
    assert f"index {read_only}/cache/genome.fa." in result.out
    assert sorted(p.name for p in read_only.iterdir()) == ["cache", "genome.fa"]
    monkeypatch.setenv("GENOMAMBA_CACHE", str(read_only / "nowhere"))
    result = run_cli("index", read_only / "genome.fa", "--force")
    assert (result.code, result.out) == (2, "")
    assert "set GENOMAMBA_CACHE to a folder that can be" in result.err
