import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genomamba.errors import VariantFileError
from genomamba.genome.variant import Variant, normalise

bases = st.text(alphabet="AC", max_size=6)


def apply(sequence: str, variant: Variant) -> str:
    assert sequence[variant.start : variant.end] == variant.ref
    return sequence[: variant.start] + variant.alt + sequence[variant.end :]


def fetcher(sequence: str):
    def fetch(contig: str, start: int, end: int) -> str:
        assert contig == "c"
        assert start >= 0
        return sequence[start:end]

    return fetch


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("A", "C", "SNV"),
        ("TAG", "TCG", "SNV"),
        ("AC", "GT", "MNV"),
        ("A", "AT", "INS"),
        ("", "T", "INS"),
        ("AT", "A", "DEL"),
        ("AT", "G", "INDEL"),
        ("A", "GTT", "INDEL"),
        ("CAG", "CAGCAG", "INS"),
    ],
)
def test_kinds(ref, alt, kind):
    assert Variant("c", 3, ref, alt).kind == kind


def test_coordinates():
    variant = Variant("chr1", 9, "AC", "A")
    assert (variant.pos, variant.end, str(variant)) == (10, 11, "chr1:10:AC>A")
    assert variant.interval.length == 2


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ((-1, "A", "C"), "POS"),
        ((0, "A", "<DEL>"), "ALT"),
        ((0, "a", "C"), "REF"),
        ((0, "A", "A"), "ALT"),
        ((0, "A", "*"), "ALT"),
    ],
)
def test_what_is_no_variant_is_refused(args, field):
    with pytest.raises(VariantFileError) as caught:
        Variant("c", *args)
    assert caught.value.field == field


def test_the_examples_of_tan_et_al():
    # their figure 1: one CA of GGGCACACACAGGG is deleted
    sequence = "GGGCACACACAGGG"
    spellings = [(5, "CAC", "C"), (2, "GCACA", "GCA"), (2, "GCA", "G"), (4, "ACA", "A"), (7, "CA", ""), (3, "CAC", "C")]
    for start, ref, alt in spellings:
        assert normalise(Variant("c", start, ref, alt), fetcher(sequence)) == Variant("c", 2, "GCA", "G")


def test_at_the_start_of_a_contig_the_anchor_stands_to_the_right():
    assert normalise(Variant("c", 2, "A", ""), fetcher("AAAC")) == Variant("c", 0, "AA", "A")
    assert normalise(Variant("c", 3, "", "A"), fetcher("AAAC")) == Variant("c", 0, "A", "AA")
    assert normalise(Variant("c", 0, "AC", ""), fetcher("AC")) == Variant("c", 0, "AC", "")


def test_a_long_repeat_is_crossed():
    sequence = "G" + "CA" * 5000
    assert normalise(Variant("c", 9_998, "ACA", "A"), fetcher(sequence.lower())) == Variant("c", 0, "GCA", "G")


@given(st.text(alphabet="AC", min_size=1, max_size=12), st.data())
@settings(max_examples=300, deadline=None)
def test_normal_form_is_the_same_for_every_spelling_and_only_for_those(sequence, data):
    """Two variants on one short sequence: same result if and only if same normal form."""
    variants = []
    for _ in range(2):
        start = data.draw(st.integers(0, len(sequence)))
        end = data.draw(st.integers(start, min(len(sequence), start + 4)))
        alt = data.draw(bases)
        assume(alt != sequence[start:end])
        variants.append(Variant("c", start, sequence[start:end], alt))
    normal = [normalise(v, fetcher(sequence)) for v in variants]
    results = [apply(sequence, v) for v in variants]
    assert [apply(sequence, v) for v in normal] == results
    assert [normalise(v, fetcher(sequence)) for v in normal] == normal
    assert [normalise(v.trimmed(), fetcher(sequence)) for v in variants] == normal
    assume(results[0] != sequence)
    assume(results[1] != sequence)
    shortest = [len(v.trimmed().ref) + len(v.trimmed().alt) for v in variants]
    if (
        results[0] == results[1]
        and all(v.kind in ("INS", "DEL", "SNV") for v in variants)
        and shortest[0] == shortest[1]
    ):
        assert normal[0] == normal[1]
    if normal[0] == normal[1]:
        assert results[0] == results[1]


@given(st.text(alphabet="ACG", min_size=1, max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_padding_with_reference_bases_changes_nothing(sequence, data):
    start = data.draw(st.integers(0, len(sequence)))
    end = data.draw(st.integers(start, len(sequence)))
    alt = data.draw(bases)
    assume(alt != sequence[start:end])
    variant = Variant("c", start, sequence[start:end], alt)
    left, right = data.draw(st.integers(0, start)), data.draw(st.integers(end, len(sequence)))
    padded = Variant("c", left, sequence[left:right], sequence[left:start] + alt + sequence[end:right])
    assert padded.trimmed().kind == variant.kind
    assert normalise(padded, fetcher(sequence)) == normalise(variant, fetcher(sequence))
