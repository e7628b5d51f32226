"""Residues (ASCII letters as files hold them) and ids (what a model sees).

The ids are those of Caduceus' character tokenizer (Schiff et al. 2024), so that weights interchange. Everything
here is a look-up in a 256-entry table. A base is never guessed: each IUPAC ambiguity code becomes N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.uint8]
Ids = NDArray[np.uint8]

CLS, SEP, BOS, MASK, PAD, RESERVED, UNK, A, C, G, T, N = range(12)
TOKENS = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N")
VOCAB_SIZE = len(TOKENS)
BASES = (A, C, G, T)

IUPAC = "ACGTRYSWKMBDHVN"
_IUPAC_COMPLEMENT = "TGCAYRSWMKVHDBN"


def _encoding() -> NDArray[np.uint8]:
    table = np.full(256, UNK, dtype=np.uint8)
    for letter in IUPAC:
        table[ord(letter)] = table[ord(letter.lower())] = {"A": A, "C": C, "G": G, "T": T}.get(letter, N)
    return table


def _residue_complement() -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    for letter, partner in zip(IUPAC, _IUPAC_COMPLEMENT, strict=True):
        table[ord(letter)], table[ord(letter.lower())] = ord(partner), ord(partner.lower())
    return table


def _id_complement() -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    table[[A, C, G, T]] = [T, G, C, A]
    return table


#: residue → id
ENCODING = _encoding()
#: residue → bool: one of the 15 IUPAC codes, in either case
IS_IUPAC = ENCODING != UNK
#: residue → residue of the other strand, case kept; what is no IUPAC code stays as it is
RESIDUE_COMPLEMENT = _residue_complement()
#: id → id of the other strand; special tokens and N are their own complement
COMPLEMENT = _id_complement()
_IS_LOWER = np.array([chr(byte) in IUPAC.lower() for byte in range(256)])
_DECODING = np.frombuffer("".join(t if len(t) == 1 else "?" for t in TOKENS).ljust(256, "?").encode(), dtype=np.uint8)

for _table in (ENCODING, IS_IUPAC, RESIDUE_COMPLEMENT, COMPLEMENT, _IS_LOWER):
    _table.setflags(write=False)
del _table


def as_residues(sequence: Residues | bytes | str) -> Residues:
    """The ASCII letters of ``sequence`` as a uint8 array of the same length.

    Raises:
        UnicodeEncodeError: a string that is not ASCII.
        TypeError: an array that is not uint8.
    """
    if isinstance(sequence, np.ndarray):
        if sequence.dtype != np.uint8:
            raise TypeError(f"residues are uint8 ASCII letters, not {sequence.dtype}")
        return sequence
    return np.frombuffer(sequence.encode("ascii") if isinstance(sequence, str) else sequence, dtype=np.uint8)


def encode(residues: Residues | bytes | str) -> Ids:
    """Residues (L,) to ids (L,), whatever their case; ambiguity codes give N, anything else UNK."""
    return ENCODING.take(as_residues(residues))


def softmask(residues: Residues | bytes | str) -> NDArray[np.bool_]:
    """True where a residue is lower case, (L,)."""
    return _IS_LOWER.take(as_residues(residues))


def decode(ids: Ids) -> str:
    """The letters of ids (L,); each special token is shown as ``?``."""
    return _DECODING.take(ids).tobytes().decode("ascii")


def reverse_complement(ids: Ids) -> Ids:
    """The other strand, read in its own direction; the last axis is the sequence."""
    return COMPLEMENT.take(ids[..., ::-1])


def reverse_complement_residues(residues: Residues | bytes | str) -> Residues:
    """The other strand of residues (L,): IUPAC codes are complemented as sets of bases, case is kept."""
    return RESIDUE_COMPLEMENT.take(as_residues(residues)[::-1])
