"""Between the readers of sequence files and the index: every residue is checked, counted and handed on."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genomamba.data import codes as residue_codes
from genomamba.data.codes import Codes
from genomamba.data.compressed import PathLike
from genomamba.errors import SequenceFileError

U_READ_AS_T = "U read as T"
_PROTEIN_ONLY = set(b"EFIJLOPQZefijlopqz")
#: below this many residues, odd composition proves nothing
_ENOUGH_TO_JUDGE = 50


@dataclass(frozen=True, slots=True)
class Contig:
    """One record of a sequence file.

    Args:
        name: first word of its header.
        length: residues.
        n: how many of them are N, in either case.
        soft_masked: how many are lower case.
    """

    name: str
    length: int
    n: int
    soft_masked: int


class Collector:
    """Takes records one after the other: ``begin``, then ``add`` as often as need be; ``finish`` at the end.

    Args:
        path: the file, for messages.
        sink: gets the codes of all residues in order.
        rna: whether U is read as T.

    Attributes:
        contigs: the records so far, in file order.
        letters: histogram of codes over the whole file, (256,).
        normalised: what was read otherwise than written, and how often.
    """

    def __init__(self, path: PathLike, sink: Callable[[Codes], None], *, rna: bool) -> None:
        self.path, self.rna = path, rna
        self.contigs: list[Contig] = []
        self.letters = np.zeros(256, dtype=np.int64)
        self.normalised: Counter[str] = Counter()
        self._sink = sink
        self._lines: dict[str, int | None] = {}
        self._open: str | None = None
        self._counts = np.zeros(256, dtype=np.int64)

    def begin(self, name: str, line: int | None = None) -> None:
        """Starts a record.

        Raises:
            SequenceFileError: it has no name, or an earlier record's.
        """
        self._close()
        if not name:
            raise SequenceFileError("the record has no name", "give it one", file=self.path, line=line, field="name")
        if name in self._lines:
            first = self._lines[name]
            raise SequenceFileError(
                "two records have this name" + (f" (the first is in line {first})" if first else ""),
                "rename or remove one; a name is the first word of a header",
                file=self.path,
                line=line,
                field="name",
                value=name,
            )
        self._lines[name] = line
        self._open = name

    def add(self, residues: bytes, locate: Callable[[int], int] | None = None) -> None:
        """More of the record that was begun; line ends within are skipped.

        Args:
            residues: ASCII letters, and line ends where ``locate`` is given.
            locate: the line of an offset into ``residues``.

        Raises:
            SequenceFileError: a letter that is no nucleotide code.
        """
        added = residue_codes.from_residues(residues, rna=self.rna)
        counts = residue_codes.histogram(added)
        if counts[residue_codes.INVALID]:
            raise self._bad_letter(residues, locate)
        if self.rna:
            self.normalised[U_READ_AS_T] += residues.count(b"U") + residues.count(b"u")
        self._counts += counts
        self._sink(added)

    def finish(self) -> None:
        """Ends the last record.

        Raises:
            SequenceFileError: no record, no residue at all, or letters that look like protein.
        """
        self._close()
        total = int(self.letters.sum())
        if not total:
            what = "every record is empty" if self.contigs else "no record in it"
            raise SequenceFileError(what, "check how the file was made", file=self.path)
        counts = residue_codes.letter_counts(self.letters)
        plain = sum(n for letter, n in counts.items() if letter in "ACGTNacgtn")
        if total >= _ENOUGH_TO_JUDGE and plain < total / 2:
            raise SequenceFileError(
                f"fewer than half of the letters are A, C, G, T or N: this looks like protein ({_shares(counts)})",
                "give the nucleotide sequence",
                file=self.path,
            )
        self.normalised = Counter({what: n for what, n in self.normalised.items() if n})

    def _close(self) -> None:
        if self._open is not None:
            counts = self._counts
            n = int(counts[residue_codes.N_CODE] + counts[residue_codes.N_CODE | residue_codes.LOWER])
            self.contigs.append(Contig(self._open, int(counts.sum()), n, int(counts[residue_codes.LOWER :].sum())))
            self.letters += counts
            self._counts = np.zeros(256, dtype=np.int64)
            self._open = None

    def _bad_letter(self, residues: bytes, locate: Callable[[int], int] | None) -> SequenceFileError:
        """The error for the first bad letter, or for protein where the letters say so."""
        raw = np.frombuffer(residues, dtype=np.uint8)
        allowed = np.zeros(256, dtype=bool)
        allowed[list(b"\r\n")] = True
        table = np.arange(256, dtype=np.uint8).tobytes().replace(b"\r", b"").replace(b"\n", b"")
        good = residue_codes.from_residues(table, rna=self.rna) != residue_codes.INVALID
        allowed[np.frombuffer(table, dtype=np.uint8)[good]] = True
        first = int(np.flatnonzero(~allowed[raw])[0])
        letter = chr(raw[first])
        seen = Counter(residue_codes.letter_counts(self.letters + self._counts))
        here = np.bincount(raw, minlength=256)
        seen.update({c: int(here[ord(c)]) for c in string.ascii_letters + "*" if here[ord(c)]})
        if any(here[list(_PROTEIN_ONLY)]):
            what = f"this looks like protein ({_shares(seen)})"
            remedy = "give the nucleotide sequence"
        elif letter in "Uu":
            what, remedy = "U in what should be DNA", "pass --rna to read U as T"
        elif letter == ">":
            what, remedy = "'>' within a line of sequence", "put the line end back that is missing before the header"
        elif letter in "*-.":
            what = "a gap or stop sign"
            remedy = "take the gaps out; an alignment is no reference"
        elif letter.isspace() or letter == "\0":
            what, remedy = "white space or NUL", "the file is damaged or no FASTA: make it again"
        else:
            what, remedy = "no IUPAC nucleotide code", "correct it, or write N for an unknown base"
        return SequenceFileError(
            f"{what}, in record {self._open}",
            remedy,
            file=self.path,
            line=locate(first) if locate else None,
            field="residue",
            value=letter if letter.isprintable() and letter != " " else f"0x{ord(letter):02x}",
        )


def _shares(counts: dict[str, int]) -> str:
    """The commonest letters with their shares, case ignored."""
    folded: Counter[str] = Counter()
    for letter, n in counts.items():
        folded[letter.upper()] += n
    total = sum(folded.values())
    return ", ".join(f"{letter} {100 * n / total:.0f} %" for letter, n in folded.most_common(8))
