import struct

import numpy as np
import pytest
from bgzip_blocks import bgzip

from genomamba.data.reference import Reference
from genomamba.errors import SequenceFileError
from genomamba.genome.interval import Interval

GENBANK = """\
LOCUS       X1                        12 bp    DNA     linear   BCT 01-JAN-2020
DEFINITION  made up.
ACCESSION   X1
VERSION     X1.2
FEATURES             Location/Qualifiers
     source          1..12
ORIGIN
        1 acgtnrycat gc
//
LOCUS       X2                         4 bp    DNA     linear   BCT 01-JAN-2020
DEFINITION  made up too.
ACCESSION   X2
VERSION     X2.1
ORIGIN
        1 ggtt
//
"""
EMBL = """\
ID   X1; SV 2; linear; genomic DNA; STD; PRO; 12 BP.
XX
AC   X1;
XX
DE   made up.
XX
SQ   Sequence 12 BP; 3 A; 3 C; 2 G; 2 T; 2 other;
     acgtnrycat gc                                                            12
//
"""


def twobit(sequences: dict[str, str]) -> bytes:
    """UCSC's 2bit format, version 0, little-endian."""

    def runs(flags: np.ndarray) -> list[int]:
        edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0))
        starts, sizes = edges[::2].tolist(), (edges[1::2] - edges[::2]).tolist()
        return [len(starts), *starts, *sizes]

    at = 16 + sum(1 + len(name) + 4 for name in sequences)
    index, body = b"", b""
    for name, sequence in sequences.items():
        letters = np.array(list(sequence))
        head = [len(sequence), *runs(np.char.upper(letters) == "N"), *runs(np.char.islower(letters)), 0]
        digits = ["TCAG".find(c) % 4 for c in sequence.upper()] + [0] * (-len(sequence) % 4)
        packed = bytes(sum(d << 6 - 2 * k for k, d in enumerate(digits[i : i + 4])) for i in range(0, len(digits), 4))
        index += struct.pack("B", len(name)) + name.encode() + struct.pack("<I", at + len(body))
        body += struct.pack(f"<{len(head)}I", *head) + packed
    return struct.pack("<4I", 0x1A412743, 0, len(sequences), 0) + index + body


def contents(path):
    reference = Reference.open(path)
    return {n: reference.fetch(Interval(n, 0, size)).tobytes().decode() for n, size in reference.contigs.items()}


def test_genbank_by_accession_and_version(tmp_path):
    expected = {"X1.2": "ACGTNRYCATGC", "X2.1": "GGTT"}
    (tmp_path / "a.gb").write_text(GENBANK)
    (tmp_path / "b.gz").write_bytes(bgzip(GENBANK.encode(), 50))
    assert contents(tmp_path / "a.gb") == contents(tmp_path / "b.gz") == expected


def test_embl(tmp_path):
    (tmp_path / "a.embl").write_text(EMBL)
    assert contents(tmp_path / "a.embl") == {"X1.2": "ACGTNRYCATGC"}


def test_twobit_keeps_n_and_the_mask(tmp_path):
    expected = {"chr1": "ACGTacgtNNNNnnACGTTTGAc", "chr2": "TTGACCA"}
    (tmp_path / "a.2bit").write_bytes(twobit(expected))
    assert contents(tmp_path / "a.2bit") == expected


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        (
            "no sequence",
            GENBANK.split("ORIGIN")[0].encode() + b"CONTIG      join(Y1.1:1..12)\n//\n",
            "the sequence of X1.2 is not there",
        ),
        ("cut", GENBANK[: GENBANK.index("rycat")].encode(), "Premature end of file in sequence data"),
        (
            "shorter than it says",
            GENBANK.replace("acgtnrycat gc", "acgtnrycat").encode(),
            "Expected sequence length 12",
        ),
        ("protein", GENBANK.replace("ggtt", "mkle").encode(), "this looks like protein"),
        ("same name", GENBANK.replace("X2", "X1").replace("X1.1", "X1.2").encode(), "two records have this name"),
        ("cut among features", GENBANK[: GENBANK.index("ORIGIN")].encode(), "no readable genbank file"),
        ("cut 2bit index", twobit({"a": "ACGT" * 40})[:19], "the 2bit file is cut short"),
        ("cut 2bit record", twobit({"a": "ACGT" * 40, "b": "AC"})[:-17], "the 2bit file is cut short"),
        ("cut embl", EMBL[: EMBL.index("//")].encode(), "embl"),
        ("cut 2bit", twobit({"a": "ACGT" * 40})[:-9], "the sequence of a is not there"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path, name, data, problem):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(SequenceFileError) as caught:
        Reference.open(path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_without_an_index_only_fasta_is_read(tmp_path):
    (tmp_path / "a.gb").write_text(GENBANK)
    with pytest.raises(SequenceFileError, match="only FASTA"):
        Reference.open(tmp_path / "a.gb", cache=False)
