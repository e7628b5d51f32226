"""The batches of a run are those of its epochs, from whatever step it goes on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.datasets import KeySampler, RunBatches, SampleKey


def expected(size: int, batch_size: int, epochs: int) -> list[list[SampleKey]]:
    batches, sampler = [], KeySampler(size, shuffle_seed=3)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        batches += [keys[at : at + batch_size] for at in range(0, size, batch_size)]
    return batches


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 4), st.data())
def test_from_any_step_on(size: int, batch_size: int, epochs: int, data: st.DataObject) -> None:
    whole = expected(size, batch_size, epochs)
    start = data.draw(st.integers(0, len(whole)))
    batches = RunBatches(size, batch_size, epochs, shuffle_seed=3, start=start)
    assert list(batches) == whole[start:]
    assert list(batches) == whole[start:]  # again
    assert len(batches) == len(whole) - start
    assert batches.total == epochs * batches.per_epoch == len(whole)


def test_each_epoch_has_every_sample_once() -> None:
    batches = list(RunBatches(10, 4, 2, shuffle_seed=0))
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = (sorted(key.sample for batch in batches[at : at + 3] for key in batch) for at in (0, 3))
    assert first == second == list(range(10))
    assert {key.epoch for key in batches[2]} == {0}
    orders = [[key.sample for batch in batches[at : at + 3] for key in batch] for at in (0, 3)]
    assert orders[0] != orders[1]
