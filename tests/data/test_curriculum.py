"""Short windows first, then longer ones, at as many bases per step; and windows on a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genomamba.data.curriculum import Curriculum, flat, stage_lengths
from genomamba.data.datamodule import collate_samples
from genomamba.data.datasets import SampleKey, TrainingWindows, WindowReader
from genomamba.data.reference import Reference
from genomamba.data.references import References
from genomamba.data.windows import RandomWindows
from genomamba.errors import ConfigError
from genomamba.genome.interval import Interval


@pytest.fixture
def curriculum(tmp_path: Path) -> Curriculum:
    path = tmp_path / "c.fa"
    path.write_text(">c\n" + "ACGTTGCA" * 200 + "\n")
    reader = WindowReader(References([Reference.open(path)]), 1.0)
    stages = {
        length: TrainingWindows(RandomWindows([Interval("c", 0, 1600)], length, seed=1, both_strands=True), reader)
        for length in (64, 16, 32)
    }
    return Curriculum(stages, 0.5, samples_per_step=4, samples_per_epoch=8, steps=20)


def test_lengths_double_over_the_first_half_of_the_steps(curriculum: Curriculum) -> None:
    assert stage_lengths(16, 64) == [16, 32, 64]
    assert [curriculum.length(step) for step in range(20)] == [16] * 5 + [32] * 5 + [64] * 10
    curriculum.share = 0.0
    assert {curriculum.length(step) for step in range(20)} == {64}
    with pytest.raises(ConfigError, match="first_window=24: doubled again and again it does not become the window"):
        stage_lengths(24, 64)


def test_every_step_has_as_many_bases_and_every_window_is_another(curriculum: Curriculum) -> None:
    seen = []
    for step in range(20):
        keys = [SampleKey(*divmod(4 * step + row, 8)) for row in range(4)]
        batch = collate_samples([curriculum[key] for key in keys])
        assert batch.ids.numel() == 4 * 64
        assert batch.ids.shape[1] == curriculum.length(step)
        seen += batch.where
    assert len(set(seen)) > 0.8 * len(seen)
    again = flat([curriculum[SampleKey(0, 3)]])
    assert [window.pieces for window in again] == [window.pieces for window in curriculum[SampleKey(0, 3)]]


@given(stride=st.integers(1, 40), jitter=st.integers(0, 20), length=st.integers(30, 120), first=st.integers(0, 9))
def test_windows_start_on_the_grid_and_a_little_further_on(stride: int, jitter: int, length: int, first: int) -> None:
    region = Interval("c", first, first + length)
    draw = RandomWindows([region], 30, seed=0, both_strands=False, stride=stride, jitter=jitter)
    starts = {draw(0, index)[0].start - first for index in range(200)}
    assert all(0 <= start <= length - 30 for start in starts)
    assert all(start % stride <= jitter or start == length - 30 for start in starts)
    if not jitter:
        assert starts <= set(range(0, length - 29, stride))
        if len(range(0, length - 29, stride)) <= 4:
            assert len(starts) == len(range(0, length - 29, stride))


def test_without_stride_and_jitter_nothing_is_drawn_besides() -> None:
    regions = [Interval("c", 0, 500), Interval("d", 3, 20)]
    plain = RandomWindows(regions, 30, seed=5, both_strands=True)
    given_ = RandomWindows(regions, 30, seed=5, both_strands=True, stride=1, jitter=0)
    assert [plain(1, i) for i in range(100)] == [given_(1, i) for i in range(100)]
    assert np.all([sum(p.length for p in plain(1, i)) == 30 for i in range(100)])
