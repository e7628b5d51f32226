"""What is held out stays held out, by place and by sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data import splits
from genomamba.data.reference import Reference
from genomamba.data.splits import draw_blocks, leak_report, shared_bases
from genomamba.errors import RegionError
from genomamba.genome.interval import Interval

SPANS = st.lists(st.tuples(st.sampled_from("cd"), st.integers(0, 40), st.integers(0, 20)), max_size=6)


@settings(max_examples=80, deadline=None)
@given(one=SPANS, other=SPANS)
def test_shared_bases_are_those_of_the_sets(one: list, other: list) -> None:
    sides = [[Interval(c, start, start + size) for c, start, size in spans] for spans in (one, other)]
    first, second = ({(i.contig, p) for i in side for p in range(i.start, i.end)} for side in sides)
    assert shared_bases(*sides) == len(first & second)


def test_blocks_are_a_fraction_that_the_seed_draws() -> None:
    regions = [Interval("a", 5, 1_005), Interval("b", 0, 95)]
    drawn = draw_blocks(regions, 100, 0.3, seed=1)
    assert len(drawn) == 3
    assert drawn == draw_blocks(regions, 100, 0.3, seed=1) != draw_blocks(regions, 100, 0.3, seed=2)
    assert all((block.start - 5) % 100 == 0 or block == Interval("b", 0, 95) for block in drawn)
    assert len(draw_blocks(regions, 100, 0.001, seed=1)) == 1


@pytest.fixture
def genome(tmp_path: Path) -> Reference:
    random = np.random.default_rng(0)
    a, b, c = ("".join(random.choice(list("ACGT"), 20_000)) for _ in range(3))
    reverse = b[:10_000].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    (tmp_path / "g.fa").write_text(f">train\n{a}\n>half\n{a[:500]}N{reverse}{c[:9_000]}\n>b\n{b}\n")
    return Reference.open(tmp_path / "g.fa")


@pytest.mark.parametrize("block", [1_000, 1 << 20])
def test_sequence_shared_on_either_strand_is_found(
    genome: Reference, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "_SCAN_BLOCK", block)
    training = [Interval("train", 0, 20_000), Interval("b", 0, 20_000)]
    held_out = {"valid": [Interval("half", 501, 10_501)], "test": [Interval("half", 10_501, 19_501)]}
    report = leak_report(genome, training, held_out, by_sequence=True)
    assert report.contained == {"valid": 1.0, "test": 0.0}
    assert report.bases == {"valid": 10_000, "test": 9_000}
    assert "valid: 10,000 bases held out, 0 of them in training windows; 100.00 % of their 31-mers" in str(report)
    both = leak_report(genome, training, {"valid": [Interval("half", 501, 19_501)]}, by_sequence=True)
    assert both.contained["valid"] == pytest.approx(10 / 19, abs=0.05)
    assert leak_report(genome, training, held_out, by_sequence=False).contained == {"valid": None, "test": None}


def test_splits_that_share_bases_are_refused(genome: Reference) -> None:
    train, other = Interval("train", 0, 100), Interval("train", 90, 200)
    with pytest.raises(RegionError, match="valid: 10 of its bases are in training windows"):
        leak_report(genome, [train], {"valid": [other]}, by_sequence=False)
    with pytest.raises(RegionError, match="test: valid and test share 10 bases"):
        leak_report(genome, [], {"valid": [train], "test": [other]}, by_sequence=False)
