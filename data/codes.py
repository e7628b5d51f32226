"""One byte per residue as the index holds it: the model's id, the IUPAC code and the case in one.

The low five bits are 7–10 for A, C, G, T (the alphabet's ids), 11 for N and 12–21 for the ambiguity codes; bit 5
is set for lower case. All of it is XORed with 11, so that N becomes zero and a long run of N a hole in the file.
Ids then come at the speed of memory, in three vector instructions, where a table costs ten times as much; and
nothing that the file said is lost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids, Residues

Codes = NDArray[np.uint8]

#: letters in the order of their codes, which start at the id of A
LETTERS = "ACGTN" + "".join(letter for letter in alphabet.IUPAC if letter not in "ACGTN")
N_CODE = 0
INVALID = 255
_CASE_BIT = 32
_LOW_BITS = 31


def _tables() -> tuple[bytes, bytes, NDArray[np.uint8]]:
    encoding = np.full(256, INVALID, dtype=np.uint8)
    decoding = np.zeros(256, dtype=np.uint8)
    for low, letter in enumerate(LETTERS, start=alphabet.A):
        for code, residue in ((low ^ alphabet.N, letter), ((low | _CASE_BIT) ^ alphabet.N, letter.lower())):
            encoding[ord(residue)] = code
            decoding[code] = ord(residue)
    decoding.setflags(write=False)
    rna = encoding.copy()
    rna[[ord("U"), ord("u")]] = encoding[[ord("T"), ord("t")]]
    return encoding.tobytes(), rna.tobytes(), decoding


_FROM_DNA, _FROM_RNA, _TO_RESIDUE = _tables()


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
    ids = np.bitwise_xor(codes, np.uint8(alphabet.N))
    np.bitwise_and(ids, np.uint8(_LOW_BITS), out=ids)
    return np.minimum(ids, np.uint8(alphabet.N), out=ids)


def to_softmask(codes: Codes) -> NDArray[np.bool_]:
    """True where the file had a lower-case letter, (L,)."""
    return np.bitwise_and(codes, np.uint8(_CASE_BIT)) != 0


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
