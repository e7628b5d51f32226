"""Regions are cut into shards whole and in order; their numbers come back from a file as they went in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.errors import OutputError
from genomamba.genome.interval import Interval
from genomamba.pipelines import region_shards
from genomamba.pipelines.region_shards import BaseValues, SpoolWorker, pieces_of, spooled
from genomamba.scoring.tracks import TrackSpool


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 1 << 21), max_size=30),
    width=st.sampled_from([1, 64, 1 << 20]),
    most=st.integers(1, 9),
)
def test_shards_hold_whole_regions_in_order(lengths: list[int], width: int, most: int) -> None:
    regions = [Interval("c", 7, 7 + length) for length in lengths]
    values = BaseValues.of(regions, width, most)
    assert [region for shard in values.shards for region in shard] == regions
    bases = min(region_shards.BASES, region_shards.NUMBERS // width)
    assert values.amounts.shards == [sum(region.length for region in shard) for shard in values.shards]
    for shard, size in zip(values.shards, values.amounts.shards, strict=True):
        assert 1 <= len(shard) <= most
        assert len(shard) == 1 or size <= bases
    for (shard, size), after in pairwise(zip(values.shards, values.amounts.shards, strict=True)):
        assert len(shard) == most or size + after[0][0].length > bases  # none could have taken the next one too


@pytest.mark.parametrize("tracks", [1, 3, 1 << 21])
def test_numbers_come_back_along_the_genome(tmp_path: Path, tracks: int) -> None:
    lengths = (5, 3) if tracks > 3 else (70_000, 3)
    regions = [Interval("a", 10, 10 + lengths[0], "-"), Interval("b", 0, lengths[1], "+")]
    known = {
        region: np.arange(region.length * tracks, dtype=np.float32).reshape(-1, tracks) + rank
        for rank, region in enumerate(regions)
    }

    def write(spool: TrackSpool, region: Interval) -> None:
        backwards = region.strand == "-"
        rows = known[region][::-1] if backwards else known[region]
        spool.write(region, np.array_split(rows, 3), backwards=backwards)

    path = SpoolWorker(tmp_path, tracks, write, window=9)(regions)
    for track in {0, tracks - 1}:
        found = list(pieces_of(spooled(path, regions, tracks), track))
        assert len(found) > 2
        for region in regions:
            own = [piece for piece in found if piece.contig == region.contig]
            assert own[0].start == region.start
            assert all(a.start + a.values.size == b.start for a, b in pairwise(own))
            np.testing.assert_array_equal(np.concatenate([piece.values for piece in own]), known[region][:, track])
    with pytest.raises(OutputError, match="it is damaged"):
        list(spooled(path, regions[:1], tracks))


def test_a_shard_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def write(spool: TrackSpool, region: Interval) -> None:
        spool.write(region, [np.zeros((2, 1), np.float32)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SpoolWorker(tmp_path, 1, write, window=9)([Interval("a", 0, 4)])
    assert list(tmp_path.iterdir()) == []
