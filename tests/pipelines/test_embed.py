"""Hidden states, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from world import REGIONS, STATUS, RunCli, World, write_reference

from genomamba.genome import alphabet
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import load_model, save_model
from genomamba.pipelines import chosen_regions


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("both_ways")
    config = ModelConfig(d_model=8, n_layer=1, d_state=4, bidirectional=True, rc_equivariant=True)
    save_model(MaskedLM(config), folder, card="", provenance={"window": 512})
    return folder


def states(model: Path, sequence: str) -> np.ndarray:
    """(L, D): of the whole sequence at once."""
    with torch.no_grad():
        return load_model(model).backbone(torch.from_numpy(alphabet.encode(sequence))[None])[0][0].numpy()


def reverse_complement(sequence: str) -> str:
    return sequence.translate(str.maketrans("ACGT", "TGCA"))[::-1]


POOLS = {"mean": lambda h: h.mean(0), "max": lambda h: h.max(0), "last": lambda h: h[-1]}


@pytest.mark.parametrize("kind", ["causal", "both ways"])
@pytest.mark.parametrize("pool", POOLS)
def test_pooled_by_hand(
    world: World, both_ways: Path, run_cli: RunCli, tmp_path: Path, genome: dict[str, str], kind: str, pool: str
) -> None:
    model = world.pretrained if kind == "causal" else both_ways
    (tmp_path / "x.bed").write_text(REGIONS)
    words = ("embed", "-r", world.reference, "-m", model, "-b", tmp_path / "x.bed", "--pool", pool, "--edge", "pad")
    windows = [50, 1000] if kind == "causal" else [1000]  # shorter and longer than the regions
    tables = []
    for window in windows:
        out = tmp_path / f"{window}.parquet"
        result = run_cli(*words, "--window", window, "-o", out, "--batch-size", 2)
        assert result.code == 0, result.err
        tables.append(pq.read_table(out).to_pydict())
    assert "5 regions, 16 numbers per vector\n" in result.err
    assert "  OK                           2\n" in result.err
    a, b = genome["chrA"], genome["chrB"]
    expected = [a[100:160], None, b[8990:], None, reverse_complement(a[300:420])]
    for table in tables:
        assert table["status"] == STATUS
        assert table["name"] == ["first", "empty", "edge", "absent", "last"]
        assert (table["contig"][2], table["start"][2], table["end"][2]) == ("chrB", 8990, 9010)
        assert table["strand"] == ["+", ".", ".", ".", "-"]
        for vector, sequence in zip(table["embedding"], expected, strict=True):
            if sequence is None:
                assert vector is None
            else:
                np.testing.assert_allclose(vector, POOLS[pool](states(model, sequence)), rtol=1e-4, atol=1e-5)


def test_both_strands_and_npz(world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str]) -> None:
    words = ("embed", "-r", world.reference, "-m", world.classifier, "--region", "chrA:11-90", "chrB:1-30")
    assert run_cli(*words, "--both-strands", "-o", tmp_path / "o.npz", "--window", 40).code == 0
    with np.load(tmp_path / "o.npz") as found:
        assert found["contig"].tolist() == ["chrA", "chrB"]
        assert found["start"].tolist() == [10, 0]
        vectors = found["embedding"]
    for vector, sequence in zip(vectors, (genome["chrA"][10:90], genome["chrB"][:30]), strict=True):
        means = [states(world.classifier, strand).mean(0) for strand in (sequence, reverse_complement(sequence))]
        np.testing.assert_allclose(vector, np.mean(means, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("both", [False, True])
def test_a_vector_per_base(world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str], both: bool) -> None:
    (tmp_path / "x.bed").write_text("chrA\t10\t60\tx\t0\t-\nchrQ\t1\t2\nchrB\t0\t20\ty\n")
    flags = ("--both-strands",) if both else ()
    words = ("embed", "-r", world.reference, "-m", world.pretrained, "-b", tmp_path / "x.bed", "--pool", "none", *flags)
    for name in ("o.parquet", "o.npz"):
        result = run_cli(*words, "-o", tmp_path / name, "--window", 16)
        assert result.code == 0, result.err
    given, other = genome["chrA"][10:60], genome["chrB"][:20]
    hidden = [states(world.pretrained, reverse_complement(given)), states(world.pretrained, other)]
    if both:
        hidden[0] = (hidden[0] + states(world.pretrained, given)[::-1]) / 2
        hidden[1] = (hidden[1] + states(world.pretrained, reverse_complement(other))[::-1]) / 2
    with np.load(tmp_path / "o.npz") as found:
        assert found["status"].tolist() == ["OK", "SKIP_NO_CONTIG", "OK"]
        assert "1" not in found
        for number, expected in ((0, hidden[0]), (2, hidden[1])):
            np.testing.assert_allclose(found[str(number)], expected, rtol=1e-4, atol=1e-5)
    table = pq.read_table(tmp_path / "o.parquet").to_pydict()
    assert table["region"] == [0] * 50 + [2] * 20
    assert table["pos"] == [*range(60, 10, -1), *range(1, 21)]
    assert "".join(table["base"]) == reverse_complement(given) + other
    np.testing.assert_allclose(table["embedding"], np.concatenate(hidden), rtol=1e-4, atol=1e-5)


def test_records_without_a_base_have_no_vector(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    write_reference(tmp_path / "s.fa", {"one": "ACGT", "n": "NNNR", "empty": "", "two": "NNA"})
    words = ("embed", "-r", tmp_path / "s.fa", "-m", world.pretrained, "-o", tmp_path / "o.parquet")
    assert run_cli(*words).code == 0
    table = pq.read_table(tmp_path / "o.parquet").to_pydict()
    assert table["name"] == ["one", "n", "empty", "two"]
    assert table["status"] == ["OK", "SKIP_NO_BASES", "SKIP_ZERO_LENGTH", "OK"]
    assert [vector is None for vector in table["embedding"]] == [False, True, True, False]
    again = run_cli(*words)
    assert (again.code, again.err.startswith(f"{tmp_path}/o.parquet: the output exists; ")) == (2, True)
    assert run_cli(*words, "--force").code == 0


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize("suffix", ["parquet", "npz"])
@pytest.mark.parametrize("chosen", ["of N", "none"])
def test_a_file_without_vectors_is_whole(
    world: World,
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
    suffix: str,
    chosen: str,
) -> None:
    write_reference(tmp_path / "s.fa", {"n": "N" * 50, "b": "ACGTACGT"})
    (tmp_path / "x.bed").write_text("n\t0\t20\nn\t30\t50\n")
    common = ("embed", "-r", tmp_path / "s.fa", "-m", world.pretrained, "--pool", pool, "-o")
    filled, out = tmp_path / f"filled.{suffix}", tmp_path / f"o.{suffix}"
    assert run_cli(*common, filled).code == 0
    if chosen == "none":
        monkeypatch.setattr(chosen_regions, "chosen_regions", lambda *_: [])
    result = run_cli(*common, out, "-b", tmp_path / "x.bed")
    assert result.code == 0, result.err
    records = 2 if chosen == "of N" else 0
    if suffix == "parquet":
        assert pq.read_schema(out) == pq.read_schema(filled)
        table = pq.read_table(out)
        assert table.num_rows == (records if pool == "mean" else 0)
        assert table["embedding"].null_count == table.num_rows
        return
    with np.load(out) as found, np.load(filled) as other:
        assert set(found) == set(other) - ({"1"} if pool == "none" else set())
        assert {name: found[name].dtype.kind for name in found} == {name: other[name].dtype.kind for name in found}
        assert found["status"].tolist() == ["SKIP_NO_BASES"] * records
        if pool == "mean":
            assert found["embedding"].shape == (records, 16)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-o", "x.tsv"), "x.tsv: the extension names no format of vectors; use .parquet or .npz"),
        (("-o", "x.npz", "--pool", "sum"), "pool=sum: expected one of 'mean', 'max', 'last', 'none'"),
        (("-o", "x.npz", "--region", "chrA:1-99999"), "end=99999: the region passes the end of chrA"),
        (("-o", "nowhere/x.npz"), "nowhere/x.npz: there is no such folder to write it to"),
    ],
)
def test_bad_options_are_refused_in_one_line(world: World, run_cli: RunCli, words: tuple[str, ...], line: str) -> None:
    result = run_cli("embed", "-r", world.reference, "-m", world.pretrained, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("text", ["chrA 1 5\n", "chrA\t9\t5\n", "chrA\t1\t5\tn\t0\tx\n", "A\t1\t5\n", ""])
def test_bad_beds_leave_nothing_behind(world: World, run_cli: RunCli, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.bed").write_text(text)
    words = ("-r", world.reference, "-m", world.pretrained, "-b", tmp_path / "x.bed", "-o", tmp_path / "o.npz")
    result = run_cli("embed", *words)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"{tmp_path}/x.bed:")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bed"]
