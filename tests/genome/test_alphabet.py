import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.genome import alphabet

residues = st.text(alphabet=alphabet.IUPAC + alphabet.IUPAC.lower(), max_size=200)
ids = st.lists(st.integers(0, alphabet.VOCAB_SIZE - 1), max_size=200).map(lambda x: np.array(x, dtype=np.uint8))


def test_ids_are_those_of_caduceus():
    assert alphabet.TOKENS.index("[MASK]") == alphabet.MASK == 3
    assert alphabet.TOKENS.index("[PAD]") == alphabet.PAD == 4
    assert alphabet.encode("ACGTN").tolist() == [7, 8, 9, 10, 11]
    assert alphabet.VOCAB_SIZE == 12


@pytest.mark.parametrize("letter", sorted(set(alphabet.IUPAC) - set("ACGT")))
def test_an_ambiguity_code_is_never_a_base(letter):
    assert alphabet.encode(letter + letter.lower()).tolist() == [alphabet.N, alphabet.N]


def test_what_is_no_nucleotide_code_is_unknown():
    rest = bytes(sorted(set(range(256)) - set((alphabet.IUPAC + alphabet.IUPAC.lower()).encode())))
    assert set(alphabet.encode(rest).tolist()) == {alphabet.UNK}
    assert not alphabet.softmask(rest).any()


@given(residues)
@settings(max_examples=50, deadline=None)
def test_encoding_keeps_bases_and_forgets_case(text):
    expected = "".join(c if c in "ACGT" else "N" for c in text.upper())
    assert alphabet.decode(alphabet.encode(text)) == expected
    assert alphabet.encode(text).tolist() == alphabet.encode(text.encode()).tolist()
    assert alphabet.softmask(text).tolist() == [c in string.ascii_lowercase for c in text]


@given(ids)
@settings(max_examples=50, deadline=None)
def test_reverse_complement_undoes_itself(sequence):
    assert alphabet.reverse_complement(alphabet.reverse_complement(sequence)).tolist() == sequence.tolist()


@given(residues)
@settings(max_examples=50, deadline=None)
def test_reverse_complement_of_residues_agrees_with_that_of_ids(text):
    other = alphabet.reverse_complement_residues(text)
    assert alphabet.reverse_complement_residues(other).tobytes().decode() == text
    assert alphabet.encode(other).tolist() == alphabet.reverse_complement(alphabet.encode(text)).tolist()
    assert alphabet.softmask(other).tolist() == alphabet.softmask(text)[::-1].tolist()


def test_ambiguity_codes_complement_as_sets_of_bases():
    pairs = "R:AG Y:CT S:CG W:AT K:GT M:AC B:CGT D:AGT H:ACT V:ACG N:ACGT"
    sets = dict(pair.split(":") for pair in pairs.split())
    opposite = dict(zip("ACGT", "TGCA", strict=True))
    for code, bases in sets.items():
        partner = alphabet.reverse_complement_residues(code).tobytes().decode()
        assert set(sets[partner]) == {opposite[b] for b in bases}


def test_a_batch_is_complemented_along_its_last_axis():
    batch = np.stack([alphabet.encode("AACG"), alphabet.encode("NTTT")])
    assert [alphabet.decode(row) for row in alphabet.reverse_complement(batch)] == ["CGTT", "AAAN"]


def test_residues_of_another_type_are_refused():
    with pytest.raises(TypeError, match="int64"):
        alphabet.encode(np.array([65, 67]))
