"""One byte per residue as the index holds it, from which ids come at the speed of memory and nothing is lost.

Bits 0–2 are the distance of the model's id from that of N (N 0, T 1, G 2, C 3, A 4), bits 3–6 tell the ambiguity
codes apart, bit 7 is set for lower case. So N is zero, and a long run of N a hole in the file; ids take two vector
instructions, where a look-up in a table costs ten times as much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids, Residues

Codes = NDArray[np.uint8]

N_CODE = 0
INVALID = 255
LOWER = 128
_DISTANCE_BITS = np.array(7, dtype=np.uint8)  # arrays, for which numpy needs half the time that scalars take
_ID_OF_N = np.array(alphabet.N, dtype=np.uint8)
_AMBIGUOUS = [letter for letter in alphabet.IUPAC if letter not in "ACGTN"]


def _tables() -> tuple[bytes, bytes, NDArray[np.uint8], NDArray[np.uint8]]:
    encoding = np.full(256, INVALID, dtype=np.uint8)
    decoding = np.zeros(256, dtype=np.uint8)
    for letter in alphabet.IUPAC:
        distance = alphabet.N - int(alphabet.ENCODING[ord(letter)])
        code = distance if letter not in _AMBIGUOUS else (_AMBIGUOUS.index(letter) + 1) << 3
        for value, residue in ((code, letter), (code | LOWER, letter.lower())):
            encoding[ord(residue)] = value
            decoding[value] = ord(residue)
    rna = encoding.copy()
    rna[[ord("U"), ord("u")]] = encoding[[ord("T"), ord("t")]]
    other_strand = alphabet.COMPLEMENT[alphabet.ENCODING[decoding]]
    for table in (decoding, other_strand):
        table.setflags(write=False)
    return encoding.tobytes(), rna.tobytes(), decoding, other_strand


_FROM_DNA, _FROM_RNA, _TO_RESIDUE, _TO_COMPLEMENT_ID = _tables()


def from_residues(residues: bytes, *, rna: bool = False) -> Codes:
    """Codes of ``residues``, its line ends left out; 255 for what is no IUPAC code.

    Args:
        residues: ASCII letters and line ends.
        rna: whether U is read as T.
    """
    return np.frombuffer(residues.translate(_FROM_RNA if rna else _FROM_DNA, b"\r\n"), dtype=np.uint8)


def to_residues(codes: Codes) -> Residues:
    """The letters, (L,), as the file had them."""
    return _TO_RESIDUE.take(codes)


def to_ids(codes: Codes) -> Ids:
    """The model's ids, (L,): every ambiguity code is N, case is forgotten."""
    ids = np.bitwise_and(codes, _DISTANCE_BITS)
    return np.subtract(_ID_OF_N, ids, out=ids)


def to_reverse_complement_ids(codes: Codes) -> Ids:
    """The ids of the other strand, (L,)."""
    return _TO_COMPLEMENT_ID.take(codes[::-1])


def to_softmask(codes: Codes) -> NDArray[np.bool_]:
    """True where the file had a lower-case letter, (L,)."""
    return codes >= LOWER


def histogram(codes: Codes) -> NDArray[np.int64]:
    """How often each code occurs, (256,)."""
    if codes.size < 1 << 16:
        return np.bincount(codes, minlength=256)
    # counting pairs of bytes takes half the time
    even = codes.size & ~1
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if even < codes.size:
        counts[codes[-1]] += 1
    return counts


def letter_counts(counts: NDArray[np.int64]) -> dict[str, int]:
    """A histogram of codes as letters, upper case first; letters that do not occur are left out."""
    named = {chr(_TO_RESIDUE[code]): int(counts[code]) for code in np.flatnonzero(counts) if _TO_RESIDUE[code]}
    return dict(sorted(named.items()))
