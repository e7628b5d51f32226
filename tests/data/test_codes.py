import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data import codes
from genomamba.genome import alphabet

residues = st.text(alphabet=alphabet.IUPAC + alphabet.IUPAC.lower(), max_size=100).map(str.encode)


@given(residues)
@settings(max_examples=50, deadline=None)
def test_nothing_is_lost_and_ids_are_the_alphabets(text):
    stored = codes.from_residues(text)
    assert codes.to_residues(stored).tobytes() == text
    assert codes.to_ids(stored).tolist() == alphabet.encode(text).tolist()
    other = alphabet.reverse_complement(alphabet.encode(text))
    assert codes.to_reverse_complement_ids(stored).tolist() == other.tolist()
    assert codes.to_softmask(stored).tolist() == alphabet.softmask(text).tolist()


def test_every_other_byte_is_invalid():
    good = set((alphabet.IUPAC + alphabet.IUPAC.lower()).encode())
    for byte in set(range(256)) - good - set(b"\r\n"):
        assert codes.from_residues(bytes([byte])).tolist() == [codes.INVALID]
    assert codes.from_residues(b"AC\r\nGT\n").size == 4
    assert codes.to_residues(codes.from_residues(b"AUu", rna=True)).tobytes() == b"ATt"


def test_n_is_zero():
    assert codes.from_residues(b"N").tolist() == [codes.N_CODE] == [0]


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 16) + 1, 1 << 17])
def test_histogram_counts(size):
    values = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    assert codes.histogram(values).tolist() == [int((values == v).sum()) for v in range(256)]


def test_letter_counts_are_by_letter():
    counts = codes.histogram(codes.from_residues(b"NNacRrA"))
    assert codes.letter_counts(counts) == {"A": 1, "N": 2, "R": 1, "a": 1, "c": 1, "r": 1}
