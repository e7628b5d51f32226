"""Where a variant stands in its window: as far from one end as from the other, however it is spelt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.pairs import longest_allele, place_window, read_window
from genomamba.data.reference import Reference
from genomamba.genome import alphabet
from genomamba.genome.variant import Variant, moved

SEQUENCE = "ACGTTGCA" * 5 + "CAG" * 9 + "T" * 30 + "GATTACA" * 8 + "AC" * 12 + "GGCTA" * 6
PAIRS = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("placement") / "genome.fa"
    path.write_text(f">c\n{SEQUENCE}\n>t\n{SEQUENCE[::-1].translate(PAIRS)}\n")
    return Reference.open(path)


changes = st.integers(40, len(SEQUENCE) - 50).flatmap(
    lambda start: st.one_of(
        st.integers(1, 8).map(lambda size: Variant("c", start, SEQUENCE[start : start + size], "")),
        st.integers(1, 8).map(lambda size: Variant("c", start, "", SEQUENCE[start : start + size])),
        st.sampled_from("ACGT")
        .filter(lambda base: base != SEQUENCE[start])
        .map(lambda base: Variant("c", start, SEQUENCE[start], base)),
    )
)


@settings(max_examples=150, deadline=None)
@given(change=changes, window=st.integers(16, 41))
def test_a_change_stands_in_the_middle(change: Variant, window: int, reference: Reference) -> None:
    core, reach, span, whole = place_window(reference, change, window)
    assert (core.start - span.start) == span.end - (core.end + reach)
    assert whole
    assert window - 1 <= span.length <= window
    assert max(len(core.ref), len(core.alt)) + reach <= longest_allele(window) + 1
    made = SEQUENCE[: change.start] + change.alt + SEQUENCE[change.end :]
    for by in {0, reach // 2, reach}:
        other = moved(core, by) if reach else core
        assert SEQUENCE[: other.start] + other.alt + SEQUENCE[other.end :] == made


@settings(max_examples=150, deadline=None)
@given(change=changes, window=st.integers(16, 41))
def test_the_other_strand_of_the_other_strand_is_the_first(change: Variant, window: int, reference: Reference) -> None:
    here = read_window(reference, change, window)
    there = here.other_strand()
    assert (there.alternative == alphabet.reverse_complement(here.alternative)).all()
    if there.end - there.start != there.alt.size and there.start:  # left-aligned: the base before would not do as well
        moving = there.alt if there.alt.size else there.context[there.start : there.end]
        if here.reach + moving.size < longest_allele(window):  # nothing was cut off
            assert there.context[there.start - 1] != moving[-1]
    back = there.other_strand()
    assert back[2:4] == here[2:4]
    for found, wanted in ((back.context, here.context), (back.alt, here.alt)):
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=150, deadline=None)
@given(change=changes, window=st.integers(32, 41), step=st.integers(2, 8))
def test_windows_on_a_grid_are_the_same_along_either_strand(
    change: Variant, window: int, step: int, reference: Reference
) -> None:
    size = len(SEQUENCE)
    here = place_window(reference, change, window, step)
    own = place_window(reference, change, window)
    off = here.span.start + here.span.end - (own.span.start + own.span.end)
    assert abs(off) <= step  # of twice the middle
    assert window - 1 <= here.span.length <= window
    assert (here.span.start + here.span.end - size) % (2 * step) == 0
    core = here.core
    turned = Variant("t", size - core.end, core.ref[::-1].translate(PAIRS), core.alt[::-1].translate(PAIRS))
    there = place_window(reference, turned, window, step).span
    assert (there.start, there.end) == (size - here.span.end, size - here.span.start)


@pytest.mark.parametrize("window", [48, 49, 96])
def test_of_a_repeat_that_is_longer_than_the_window_the_middle_counts(window: int, tmp_path: Path) -> None:
    sequence = "ACGTTGCA" * 8 + "CAG" * 59 + "C" + "GATTACA" * 9
    turned = sequence[::-1].translate(PAIRS)
    path = tmp_path / "genome.fa"
    path.write_text(f">c\n{sequence}\n>t\n{turned}\n")
    reference = Reference.open(path)
    start = 64
    here = read_window(reference, Variant("c", start, sequence[start : start + 3], ""), window)
    end = len(sequence) - start
    there = read_window(reference, Variant("t", end - 3, turned[end - 3 : end], ""), window)
    back = there.other_strand()
    assert (back.start, back.end) == (here.start, here.end)
    np.testing.assert_array_equal(back.context, here.context)
    assert here.reach <= longest_allele(window) + 1
