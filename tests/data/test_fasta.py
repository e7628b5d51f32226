"""What is read as meant, what is refused and with which line: catalogue cases 1 to 15."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data import codes
from genomamba.data.collector import Collector
from genomamba.data.fasta import scan_fasta
from genomamba.errors import SequenceFileError
from genomamba.genome.alphabet import IUPAC


def read(data: bytes, step: int = 1 << 20, *, rna: bool = False):
    parts = [np.zeros(0, np.uint8)]
    collector = Collector("f.fa", parts.append, rna=rna)
    entries = scan_fasta((data[i : i + step] for i in range(0, len(data), step)), collector)
    collector.finish()
    text = codes.to_residues(np.concatenate(parts)).tobytes().decode()
    sequences, at = {}, 0
    for contig in collector.contigs:
        sequences[contig.name] = text[at : at + contig.length]
        at += contig.length
    assert at == len(text)
    return sequences, collector, entries


def test_names_order_and_counts():
    sequences, collector, _ = read(b">b first\nACGTN\nacn\n>a\tsecond\nRY\n")
    assert list(sequences.items()) == [("b", "ACGTNacn"), ("a", "RY")]
    assert [(c.n, c.soft_masked) for c in collector.contigs] == [(2, 3), (0, 0)]


@pytest.mark.parametrize(
    ("data", "sequences", "normalised"),
    [
        (b">a\nACgtRn\n", {"a": "ACgtRn"}, {}),  # 1, 2
        (b">a\n>b\nAC\n", {"a": "", "b": "AC"}, {}),  # 6
        (b">a\r\nAC\r\nG\r\n", {"a": "ACG"}, {"CRLF line ends": 3}),  # 8
        (b">a\r\nAC\nG\r\n", {"a": "ACG"}, {"CRLF line ends": 2}),
        (b">a\nAC\nG", {"a": "ACG"}, {}),  # 10
        (b">a\nAC", {"a": "AC"}, {}),
        (b">a\r\nAC\r", {"a": "AC"}, {"CRLF line ends": 2}),
        (b">a\nAC\n>b", {"a": "AC", "b": ""}, {}),
        (b">a\nAC\n\n\n", {"a": "AC"}, {"blank lines after a record": 2}),  # 12
        (b">a\nAC\n\n>b\nG\n\r\n", {"a": "AC", "b": "G"}, {"blank lines after a record": 2, "CRLF line ends": 1}),
        (b"\n\n>a\nAC\n", {"a": "AC"}, {"blank lines before the first record": 2}),
        (b"\xef\xbb\xbf>a\nAC\n", {"a": "AC"}, {"byte-order mark": 1}),  # 14
        (">λ phage\nAC\n".encode(), {"λ": "AC"}, {}),
        (b">a >b\nAC\n", {"a": "AC"}, {}),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_read_as_meant(data, sequences, normalised, step):
    found, collector, _ = read(data, step)
    assert found == sequences
    assert dict(collector.normalised) == normalised


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b">a\nAC*\n", 2, "residue=*: a gap or stop sign"),  # 3
        (b">a\nAC\nA-\n", 3, "residue=-: a gap"),
        (b">a\nAC\n.A\n", 3, "residue=.: a gap"),
        (b">a\nAC\nGU\n", 3, "residue=U: U in what should be DNA, in record a; pass --rna"),  # 4
        (b">a\nMKLVEEQ\n", 2, "this looks like protein ("),  # 5
        (b">a\nMKV*\n>b\nMKFL\n", 2, "residue=*"),
        (b">a\nMAGHSTDRWYVKNCMAGHSTDRWYVKNCMAGHSTDRWYVKNCMAGHSTDRWYVKNC\n", None, "fewer than half of the letters"),
        (b">a x\nAC\n>b\nAC\n>a y\nAC\n", 5, "name=a: two records have this name (the first is in line 1)"),  # 7
        (b">a\rACGT\r>b\rAC\r", 1, "CR only"),  # 9
        (b"\r>a\rACGT\r", 1, "a CR stands within the line"),
        (b">a\nACGT\nAC\nACGT\n", 3, "differs from that of the others"),  # 11
        (b">a\nAC\nACGT\n", 3, "differs from that of the others"),
        (b">a\nACGT\nACGT\nAC\nA\n", 4, "differs from that of the others"),
        (b">a\nACGT\n\nACGT\n", 3, "a blank line within a record"),
        (b">a\nACGT\nAC\n\n\nAC\n", 3, "differs from that of the others"),
        (b">a\nACGT\nACGT\n\n\nAC\n", 4, "a blank line within a record"),
        (b">a\n\nACGT\n", 2, "a blank line within a record"),
        (b">a\nAC\0T\n", 2, "residue=0x00: white space or NUL"),  # 13
        (b">a\nAC T\n", 2, "residue=0x20: white space or NUL"),
        (b">a\nAC\t\n", 2, "residue=0x09: white space or NUL"),
        (b">a\nACGT>b\nACGTAA\n", 2, "'>' within a line of sequence"),
        (b">a\nA>b\n", 2, "'>' within a line of sequence"),
        ("\ufeff>a\nAC\n".encode("utf-16-le"), 1, "UTF-16"),  # 14
        (b"@r1\nACGT\n+\nIIII\n", 1, "this is FASTQ"),  # 15
        (b">a\nACG1\n", 2, "residue=1: no IUPAC nucleotide code"),
        (b">a\nACGX\n", 2, "residue=X: no IUPAC nucleotide code, in record a; correct it, or write N"),
        (">a\nACGé\n".encode(), 2, "residue=Ã: no IUPAC"),
        (b">a\nAC\rGT\n", 2, "a CR stands within the line"),
        (b">a\nACGT\nAC\r\r\n", 3, "a CR stands within the line"),
        (b">a\rb\nACGT\n", 1, "CR"),
        (b">\nACGT\n", 1, "no name"),
        (b"> a\nACGT\n", 1, "no name"),
        (b">\xff\nACGT\n", 1, "not UTF-8"),
        (b">a\x07\nACGT\n", 1, "control characters"),
        (b"\nACGT\n", 2, "sequence before the first header"),
        (b"\n\n", None, "no record in it"),
        (b">a\n>b\n", None, "every record is empty"),
        (b">" + b"x" * (1 << 21), 1, "does not end"),
    ],
)
def test_refused_with_the_line(data, line, words):
    for step in (1 << 22,) if len(data) > 1000 else (1, 3, 1 << 20):
        with pytest.raises(SequenceFileError) as caught:
            read(data, step)
        assert words in str(caught.value)
        assert str(caught.value).startswith("f.fa" + (f":{line}: " if line else ": "))
        assert "\n" not in str(caught.value)


def test_u_is_t_on_request():
    sequences, collector, _ = read(b">a\nACGU\nuT\n", rna=True)
    assert sequences == {"a": "ACGTtT"}
    assert collector.normalised["U read as T"] == 2


records = st.lists(
    st.tuples(st.text(alphabet=IUPAC + IUPAC.lower() + "N" * 30, max_size=60), st.integers(1, 20)),
    min_size=1,
    max_size=5,
).filter(lambda rows: any(text for text, _ in rows))


@given(records, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_written_is_what_is_read(rows, newline, last, step):
    """Any line width, case and IUPAC code, in chunks of any size; and the .fai entries are right."""
    text = ""
    for i, (sequence, width) in enumerate(rows):
        lines = [f">c{i} x", *(sequence[j : j + width] for j in range(0, len(sequence), width))]
        text += newline.join(lines) + newline
    data = (text if last else text.removesuffix(newline)).encode()
    if sum(len(s) for s, _ in rows) >= 50 and sum(c in "ACGTNacgtn" for s, _ in rows for c in s) * 2 < len(
        "".join(s for s, _ in rows)
    ):
        return
    sequences, collector, entries = read(data, step)
    assert list(sequences.values()) == [sequence for sequence, _ in rows]
    for entry, (sequence, _) in zip(entries, rows, strict=True):
        assert entry.length == len(sequence)
        assert entry.uniform
        for i, letter in enumerate(sequence):
            row, column = divmod(i, entry.line_residues)
            assert chr(data[entry.offset + row * entry.line_bytes + column]) == letter
    assert sum(collector.letters) == sum(map(len, sequences.values()))


def test_mixed_line_ends_are_told():
    _, _, entries = read(b">a\r\nAC\nGT\r\nA\n>b\nAC\nGT\n>c\r\nAC\r\nG")
    assert [entry.uniform for entry in entries] == [False, True, True]
