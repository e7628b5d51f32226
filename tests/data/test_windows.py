"""Which bases training sees: all of what is sequenced, none of what is held out, in an order that a seed decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data import windows
from genomamba.data.datasets import FixedWindows, KeySampler, SampleKey, TrainingWindows, WindowReader, collate
from genomamba.data.reference import Reference
from genomamba.data.windows import RandomWindows, sequenced_regions, subtract, tiles, whole_contigs
from genomamba.errors import RegionError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    sequence = "N" * 200 + "ACGT" * 100 + "N" * 49 + "acgtR" * 40 + "N" * 51 + "G" * 300 + "N" * 10
    (tmp_path / "g.fa").write_text(f">one\n{sequence}\n>two\nACGTNACGT\n>three\n{'N' * 80}\n")
    return Reference.open(tmp_path / "g.fa")


@pytest.mark.parametrize("block", [64, 333, 1 << 24])
def test_long_runs_of_n_part_regions_and_short_ones_do_not(
    reference: Reference, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_SCAN_BLOCK", block)
    found = sequenced_regions(reference, whole_contigs(reference))
    assert found == [Interval("one", 200, 849), Interval("one", 900, 1200), Interval("two", 0, 9)]


@settings(max_examples=60, deadline=None)
@given(holes=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), max_size=5))
def test_subtraction_is_set_difference(holes: list[tuple[int, int]]) -> None:
    held_out = [Interval("c", start, start + size) for start, size in holes]
    remaining = subtract([Interval("c", 10, 60), Interval("d", 0, 5)], held_out)
    kept = {(r.contig, p) for r in remaining for p in range(r.start, r.end)}
    gone = {p for h in held_out for p in range(h.start, h.end)}
    assert kept == {("c", p) for p in range(10, 60) if p not in gone} | {("d", p) for p in range(5)}
    assert sum(r.length for r in remaining) == len(kept)


def test_tiles_cover_each_base_once() -> None:
    assert tiles([Interval("c", 5, 27)], 10) == [Interval("c", 5, 15), Interval("c", 15, 25), Interval("c", 25, 27)]


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    regions = [Interval("a", 0, 1000), Interval("b", 0, 30)]
    draw = RandomWindows(regions, 64, seed=3, both_strands=True)
    again = RandomWindows(regions, 64, seed=3, both_strands=True)
    keys = [(e, i) for e in range(3) for i in range(200)]
    forward = [draw(*key) for key in keys]
    assert forward == [again(*key) for key in reversed(keys)][::-1]
    other = RandomWindows(regions, 64, seed=4, both_strands=True)
    assert forward != [other(*key) for key in keys]
    assert len({tuple(pieces) for pieces in forward}) > 300
    assert {piece.strand for pieces in forward for piece in pieces} == {"+", "-"}
    assert all(any(r.contains(piece) for r in regions) for pieces in forward for piece in pieces)
    assert all(sum(piece.length for piece in pieces) == 64 for pieces in forward)
    assert draw(0, 0) != draw(0, 0, attempt=1)


def test_every_start_is_equally_likely_and_short_regions_fill_rows_together() -> None:
    draw = RandomWindows(
        [Interval("a", 10, 22), Interval("b", 0, 4), Interval("c", 5, 7)], 10, seed=0, both_strands=False
    )
    seen = [tuple(draw(0, i)) for i in range(9000)]
    whole = [pieces[0] for pieces in seen if pieces[0].contig == "a"]
    counts = {window: whole.count(window) for window in set(whole)}
    assert set(counts) == {Interval("a", s, s + 10) for s in (10, 11, 12)}
    assert all(880 < count < 1120 for count in counts.values())  # of 3 starts and 6 bases in short regions
    packed = [pieces for pieces in seen if pieces[0].contig != "a"]
    short = {"b": Interval("b", 0, 4), "c": Interval("c", 5, 7)}
    for pieces in packed:
        assert sum(piece.length for piece in pieces) == 10
        assert all(piece == short[piece.contig] for piece in pieces[:-1])
        assert short[pieces[-1].contig].contains(pieces[-1])
    alone = RandomWindows(list(short.values()), 10, seed=0, both_strands=False, pack=False)
    assert {tuple(alone(0, i)) for i in range(50)} == {(region,) for region in short.values()}
    bases = {name: sum(p.length for pieces in packed for p in pieces[:1] if p.contig == name) for name in "bc"}
    assert 3.6 < bases["b"] / bases["c"] < 4.4  # twice as likely, and twice as long


def test_a_mixture_gives_each_genome_its_share() -> None:
    regions = [Interval("a", 0, 100_000), Interval("b", 0, 1_000), Interval("c", 0, 1_000)]
    mixture = [(frozenset("a"), 1.0), (frozenset("bc"), 3.0)]
    draw = RandomWindows(regions, 50, seed=0, both_strands=True, mixture=mixture)
    contigs = [draw(0, i)[0].contig for i in range(2000)]
    assert 400 < contigs.count("a") < 600
    assert 650 < contigs.count("b") < 850
    with pytest.raises(RegionError, match="no sequence of reference 2 is left"):
        RandomWindows(regions[:1], 50, seed=0, both_strands=True, mixture=mixture)


def test_rows_of_too_many_n_are_passed_over_and_counted(reference: Reference) -> None:
    draw = RandomWindows([Interval("one", 150, 250)], 20, seed=0, both_strands=False)
    reader = WindowReader(reference, 1.0)
    strict, lax = TrainingWindows(draw, reader, 0.2), TrainingWindows(draw, reader)
    rejected = 0
    for sample in range(50):
        window, first = strict[SampleKey(0, sample)], lax[SampleKey(0, sample)]
        assert np.count_nonzero(window.ids == alphabet.N) <= 4
        assert (window.rejected == 0) == (np.count_nonzero(first.ids == alphabet.N) <= 4)
        assert window.pieces == draw(0, sample, window.rejected)
        rejected += window.rejected
    assert rejected > 20
    only_n = RandomWindows([Interval("one", 0, 200)], 20, seed=0, both_strands=False)
    with pytest.raises(RegionError, match=r"max_n_frac=0.2: 100 windows in a row"):
        TrainingWindows(only_n, reader, 0.2)[SampleKey(0, 0)]


def test_packed_pieces_are_predicted_as_if_alone(reference: Reference) -> None:
    pieces = [Interval("one", 650, 663), Interval("two", 0, 9, "-"), Interval("one", 910, 920)]
    reader = WindowReader(reference, 1.0)
    packed, alone = collate([reader(*pieces)]), [collate([reader(piece)]) for piece in pieces]
    assert packed.reset is not None
    assert packed.reset[0].nonzero().flatten().tolist() == [0, 13, 22]
    assert packed.weight[0, [13, 22]].tolist() == [0, 0]
    model = CausalLM(ModelConfig(d_model=8, n_layer=2, d_state=4), impl="reference")
    together = model.log_likelihood(packed.ids, packed.reset)[0]
    for start, batch in zip((0, 13, 22), alone, strict=True):
        own = model.log_likelihood(batch.ids)[0]
        assert batch.reset is None
        assert torch.equal(together[start : start + own.numel()], own)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(RegionError, match="no sequence is left"):
        RandomWindows([], 10, seed=0, both_strands=False)


def test_weights_follow_case_and_spare_n(reference: Reference) -> None:
    window = WindowReader(reference, softmask_weight=0.25)(Interval("one", 645, 655))
    assert alphabet.decode(window.ids) == "NNNNACGTNA"
    assert window.weight.tolist() == [0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0.25]


def test_batches_are_right_padded_with_no_weight(reference: Reference) -> None:
    data = FixedWindows([Interval("two", 0, 9), Interval("two", 0, 4)], WindowReader(reference, 1.0))
    batch = collate([data[0], data[1]])
    assert batch.ids[1].tolist() == [7, 8, 9, 10] + [alphabet.PAD] * 5
    assert batch.weight[1].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_minus_strand_is_the_reverse_complement(reference: Reference) -> None:
    reader = WindowReader(reference, 1.0)
    plus, minus = reader(Interval("one", 195, 215)), reader(Interval("one", 195, 215, "-"))
    assert np.array_equal(minus.ids, alphabet.reverse_complement(plus.ids))
    assert np.array_equal(minus.weight, plus.weight[::-1])


def test_sampler_orders() -> None:
    plain, mixed = KeySampler(20), KeySampler(20, shuffle_seed=1)
    assert list(plain) == [SampleKey(0, i) for i in range(20)]
    first = list(mixed)
    assert sorted(first) == list(plain)
    assert first != list(plain)
    mixed.set_epoch(1)
    assert [key.sample for key in mixed] != [key.sample for key in first]
    assert all(key.epoch == 1 for key in mixed)


def test_training_windows_are_read_by_key(reference: Reference) -> None:
    draw = RandomWindows([Interval("one", 200, 600)], 32, seed=0, both_strands=True)
    data = TrainingWindows(draw, WindowReader(reference, 1.0))
    window = data[SampleKey(2, 5)]
    assert window.pieces == draw(2, 5)
    assert window.ids.size == 32
