"""Batches of sequences of any length: each place once, no more than planned, and fewer where memory is short."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.model.config import ModelConfig
from genomamba.scoring.batch_size import Halved, OutOfMemoryError
from genomamba.scoring.length_batches import LengthBatches

CPU = torch.device("cpu")


def batches(lengths: list[int], size: int | None, *, room: int, holds: int) -> tuple[list[slice], LengthBatches]:
    """Of a plan for ``room`` bases on a device that holds ``holds``."""
    made = LengthBatches(ModelConfig(d_model=8, n_layer=1), size, CPU, otherwise="do without")
    made._planned = made._bases = room

    def forward(part: slice) -> slice:
        if (part.stop - part.start) * max(lengths[part]) > holds:
            raise torch.OutOfMemoryError
        return part

    found = []
    for part, same in made(lengths, forward):
        assert part == same
        found.append(part)
    return found, made


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=40), room=st.integers(1, 400), holds=st.integers(50, 400))
def test_every_place_is_in_one_batch_that_fits(lengths: list[int], room: int, holds: int) -> None:
    for order in (lengths, sorted(lengths)):
        found, made = batches(order, None, room=room, holds=holds)
        assert [at for part in found for at in range(part.start, part.stop)] == list(range(len(order)))
        for part in found:
            assert part.stop - part.start == 1 or (part.stop - part.start) * max(order[part]) <= min(room, holds)
        if holds >= max(room, 50):
            assert made.halved is None
            for before, after in pairwise(found):  # no batch could have taken the next sequence too
                assert (before.stop + 1 - before.start) * max(order[before.start : after.start + 1]) > room


def test_halving_goes_on_until_it_fits_and_is_told() -> None:
    found, made = batches([10] * 16, None, room=160, holds=30)
    assert [part.stop - part.start for part in found] == [2] * 8
    assert made.halved == Halved(160, 20)


@pytest.mark.parametrize(
    ("size", "holds", "problem"),
    [
        (4, 35, r"4 sequences of up to 10 bases do not fit the memory; give a smaller --batch-size, or auto"),
        (None, 9, r"1 sequences of up to 10 bases do not fit the memory; do without"),
    ],
)
def test_what_cannot_be_halved_is_an_error(size: int | None, holds: int, problem: str) -> None:
    with pytest.raises(OutOfMemoryError, match=problem):
        batches([10] * 16, size, room=160, holds=holds)


def test_a_given_size_is_kept() -> None:
    found, made = batches([1, 50, 3, 4, 5], 2, room=1, holds=100)
    assert found == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert made.halved is None
