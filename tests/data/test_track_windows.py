"""Values of bigWigs beside the bases they belong to."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genomamba.data import track_windows
from genomamba.data.bigwig import BigWig
from genomamba.data.datasets import SampleKey
from genomamba.data.reference import Reference
from genomamba.data.track_windows import (
    RandomTrackWindows,
    TrackReader,
    TrackTiles,
    collate_tracks,
    summarise_tracks,
)
from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.data.windows import RandomWindows
from genomamba.errors import LabelError, RegionError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

pytest.importorskip("pybigtools")
SIZES = {"c": 90, "d": 40}
WHOLE = [Interval("c", 0, 90), Interval("d", 0, 40)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    random = np.random.default_rng(0)
    text = {name: "".join(random.choice(list("ACGT"), size)) for name, size in SIZES.items()}
    text["c"] = text["c"][:20] + "NNRN" + text["c"][24:]
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in text.items()))
    return Reference.open(path)


def bigwig(path: Path, values: Mapping[str, NDArray], **kinds: object) -> BigWig:
    pieces = [TrackPiece(name, 0, np.asarray(own, dtype=np.float32)) for name, own in values.items()]
    write_bigwig(path, {name: len(own) for name, own in values.items()}, pieces)
    return BigWig(path, SIZES, reference="g.fa", **kinds)  # type: ignore[arg-type]


def drawn(seed: int, holes: float = 0.3) -> dict[str, NDArray]:
    random = np.random.default_rng(seed)
    values = {name: random.normal(100, 5, size).astype(np.float32) for name, size in SIZES.items()}
    return {name: np.where(random.random(own.size) < holes, np.nan, own) for name, own in values.items()}


def test_values_follow_the_strand_and_survive_forks_and_pickles(tmp_path: Path) -> None:
    values = drawn(0)
    file = bigwig(tmp_path / "a.bw", values)
    for each in (file, pickle.loads(pickle.dumps(file))):
        np.testing.assert_array_equal(each.values(Interval("c", 10, 50)), values["c"][10:50])
        np.testing.assert_array_equal(each.values(Interval("c", 10, 50, "-")), values["c"][10:50][::-1])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        intervals = [Interval("c", start, start + 30) for start in range(60)]
        for interval, found in zip(intervals, pool.map(file.values, intervals), strict=True):
            np.testing.assert_array_equal(found, values["c"][interval.start : interval.end])


def test_contigs_are_matched_as_everywhere(tmp_path: Path) -> None:
    values = drawn(0)
    renamed = {"chrc": values["c"], "other": np.ones(3)}
    with pytest.raises(RegionError, match=r"no contig in common: here chrc, other; in g.fa c, d; pass --contig-ali"):
        bigwig(tmp_path / "a.bw", renamed)
    file = bigwig(tmp_path / "a.bw", renamed, aliases="auto")
    np.testing.assert_array_equal(file.values(Interval("c", 0, 90)), values["c"])
    assert np.isnan(file.values(Interval("d", 0, 40))).all()
    with pytest.raises(RegionError, match=r"a\.bw: contig=c: it has 91 bases here, and 90 in g\.fa; "):
        bigwig(tmp_path / "a.bw", {"c": np.ones(91)})
    with pytest.raises(RegionError, match=r"a\.bw: contig=c: it and chrc are both c of g\.fa; "):
        bigwig(tmp_path / "a.bw", {"chrc": values["c"], "c": values["c"]}, aliases="auto")


def test_what_is_no_bigwig_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.bw"
    bigwig(whole, drawn(0))
    for name, content in (("empty", b""), ("text", b"variableStep\n" * 99), ("cut", whole.read_bytes()[:300])):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LabelError, match=f"{name}: it is no bigWig, or it is cut; give a whole bigWig"):
            BigWig(path, SIZES, reference="g.fa")
    with pytest.raises(LabelError, match="it is a folder"):
        BigWig(tmp_path, SIZES, reference="g.fa")
    assert capfd.readouterr() == ("", "")
    import pybigtools

    pybigtools.open(str(tmp_path / "a.bb"), "w").write(SIZES, [("c", 1, 5, "x")])
    with pytest.raises(LabelError, match="it is a bigBed"):
        BigWig(tmp_path / "a.bb", SIZES, reference="g.fa")


def test_a_damaged_block_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bw"
    write_bigwig(path, {"c": 90_000}, [TrackPiece("c", 0, np.random.default_rng(0).random(90_000, np.float32))])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    file = BigWig(path, {"c": 90_000}, reference="g.fa")
    with pytest.raises(LabelError, match=r"a\.bw: what it has of c:1-90000 cannot be read; get the file again"):
        file.values(Interval("c", 0, 90_000))


@pytest.mark.parametrize("missing", ["skip", "zero"])
def test_what_does_not_count(reference: Reference, tmp_path: Path, missing: track_windows.Missing) -> None:
    values = drawn(1)
    sample = TrackReader(reference, [bigwig(tmp_path / "a.bw", values)], missing)(Interval("c", 10, 40, "-"))
    np.testing.assert_array_equal(sample.ids, reference.ids(Interval("c", 10, 40, "-")))
    is_base = (sample.ids >= alphabet.A) & (sample.ids <= alphabet.T)
    assert is_base.sum() == 26
    expected = values["c"][10:40][::-1]
    expected = expected if missing == "skip" else np.nan_to_num(expected)
    np.testing.assert_array_equal(sample.target[:, 0], np.where(is_base, expected, np.nan))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(window=st.integers(2, 70), at_once=st.integers(1, 100), zero=st.booleans(), seed=st.integers(0, 9))
def test_a_summary_is_that_of_all_values_at_once(
    reference: Reference, tmp_path: Path, window: int, at_once: int, zero: bool, seed: int
) -> None:
    values = drawn(seed)
    values["d"][:] = np.nan
    reader = TrackReader(reference, [bigwig(tmp_path / "a.bw", values)], "zero" if zero else "skip")
    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_windows, "_AT_ONCE", at_once)
        found = summarise_tracks(reader, WHOLE, window, counts=False, progress=done.append)
    targets = np.concatenate([reader(interval).target for interval in WHOLE]).astype(np.float64)
    counted = targets[~np.isnan(targets)]
    assert (found.bases, sum(done)) == (126, 130)
    assert found.counted.tolist() == [counted.size]
    base = np.concatenate([np.delete(values["c"], range(20, 24)), values["d"]])
    assert found.valued.tolist() == [np.count_nonzero(~np.isnan(base))]
    np.testing.assert_allclose(found.mean, counted.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.spread, counted.std(), rtol=1e-12)
    assert (found.lowest.item(), found.highest.item()) == (counted.min(), counted.max())
    assert {region.contig for region in found.regions} == ({"c", "d"} if zero else {"c"})


def test_every_window_drawn_has_a_value(reference: Reference, tmp_path: Path) -> None:
    values = {"c": np.full(90, np.nan), "d": np.full(40, np.nan)}
    values["c"][[3, 77]] = 1, 2
    reader = TrackReader(reference, [bigwig(tmp_path / "a.bw", values)], "skip")
    found = summarise_tracks(reader, WHOLE, 8, counts=True)
    assert found.regions == [Interval("c", 0, 16), Interval("c", 64, 88)]
    windows = RandomWindows(found.regions, 8, seed=0, both_strands=True, pack=False)
    data = RandomTrackWindows(windows, reader)
    samples = [data[SampleKey(0, number)] for number in range(50)]
    assert {value for sample in samples for value in sample.target[~np.isnan(sample.target)].tolist()} == {1, 2}
    assert all(np.isfinite(sample.target).any() for sample in samples)
    assert {sample.where[-2] for sample in samples} == {"+", "-"}
    nothing = RandomWindows([Interval("d", 0, 40)], 8, seed=0, both_strands=True, pack=False)
    with pytest.raises(RegionError, match="200 windows in a row have no value"):
        RandomTrackWindows(nothing, reader)[SampleKey(0, 0)]


def test_batches_are_padded_with_what_does_not_count(reference: Reference, tmp_path: Path) -> None:
    reader = TrackReader(reference, [bigwig(tmp_path / "a.bw", drawn(0))] * 2, "zero")
    tiles = TrackTiles([Interval("d", 0, 8), Interval("d", 8, 13)], reader)
    batch = collate_tracks([tiles[0], tiles[1]])
    assert batch.length is not None
    assert batch.length.tolist() == [8, 5]
    assert (batch.ids.shape, batch.target.shape) == ((2, 8), (2, 8, 2))
    assert (batch.ids[1, 5:] == alphabet.PAD).all()
    assert batch.target[1, 5:].isnan().all()
    assert not batch.target[:, :5].isnan().any()
    assert collate_tracks([tiles[0]]).length is None


def test_values_that_cannot_be_are_named_with_their_place(reference: Reference, tmp_path: Path) -> None:
    values = {"c": np.ones(90), "d": np.ones(40)}
    values["d"][7] = -2
    reader = TrackReader(reference, [bigwig(tmp_path / "a.bw", values)], "skip")
    summarise_tracks(reader, WHOLE, 8, counts=False)
    with pytest.raises(LabelError, match=r"a\.bw: region=d:8-8: a value below 0, which is no count, -2; train with"):
        summarise_tracks(reader, WHOLE, 8, counts=True)
    values["d"][9] = np.inf
    reader = TrackReader(reference, [bigwig(tmp_path / "a.bw", values)], "zero")
    with pytest.raises(LabelError, match=r"a\.bw: region=d:10-10: a value that is not finite, inf; mend the file"):
        summarise_tracks(reader, WHOLE, 8, counts=False)
