"""Tracks of bits per base, through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from world import RunCli, World, write_reference

from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.errors import OutputError
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.model.sequence_heads import TokenModel

pyBigWig = pytest.importorskip("pyBigWig")  # what others read bigWigs with; it has no wheel everywhere


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("masked")
    model = MaskedLM(ModelConfig(d_model=8, n_layer=1, d_state=4, bidirectional=True))
    save_model(model, folder, card="", provenance={"window": 64})
    return folder


def sums(path: Path) -> dict[str, tuple[int, float]]:
    """Bases and bits of each contig, as pyBigWig sees them."""
    with pyBigWig.open(str(path)) as track:
        return {
            contig: (len(values := track.intervals(contig)), sum(value for _, _, value in values))
            for contig in track.chroms()
        }


def test_a_bigwig_sums_to_the_figure_of_evaluate(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    out, bed = tmp_path / "all.bw", tmp_path / "all.bed"
    result = run_cli("likelihood", "-r", world.reference, "-m", world.pretrained, "-o", out, "--window", 777)
    assert result.code == 0, result.err
    bed.write_text("chrA\t0\t10000\nchrB\t0\t9000\n")
    words = ("-r", world.reference, "-b", bed, "-m", world.pretrained, "--stream")
    rows = [line.split("\t") for line in run_cli("evaluate", "regions", *words).out.splitlines()[1:]]
    found = sums(out)
    for contig, _, _, _, bases, bits, _ in rows:
        assert found[contig][0] == int(bases)
        assert f"{found[contig][1] / found[contig][0]:.4f}" == bits
    bases, bits = (sum(each[i] for each in found.values()) for i in (0, 1))
    assert f"{bits / bases:.4f} bits per base over {bases:,} bases" in result.err
    with pyBigWig.open(str(out)) as track:
        assert track.isBigWig()
        assert track.header()["nLevels"] > 0  # browsers need zoom levels
        assert (track.chroms("chrA"), np.isnan(track.values("chrA", 0, 1)[0])) == (10_000, True)


def test_every_format_says_the_same(world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str]) -> None:
    words = ("likelihood", "-r", world.reference, "-m", world.pretrained, "--region", "chrB:501-700", "chrA:11-20")
    for name in ("t.bw", "t.bedgraph.gz", "t.tsv"):
        assert run_cli(*words, "-o", tmp_path / name).code == 0
    plain = run_cli(*words)
    assert plain.code == 0, plain.err
    assert "2 regions: " in plain.err
    graph = [line.split("\t") for line in plain.out.splitlines()]
    assert [row[0] for row in graph] == ["chrA"] * 9 + ["chrB"] * 199  # the reference's order
    unzipped = subprocess.run(["gzip", "-dc", tmp_path / "t.bedgraph.gz"], capture_output=True, text=True, check=True)
    assert unzipped.stdout == plain.out
    with pyBigWig.open(str(tmp_path / "t.bw")) as track:
        for contig, start, end, value in graph:
            assert track.values(contig, int(start), int(end)) == [pytest.approx(float(value), rel=1e-5)]
    table = [line.split("\t") for line in (tmp_path / "t.tsv").read_text().splitlines()]
    assert table[0] == ["contig", "pos", "base", "bits"]
    assert [row[0] for row in table[1:]] == ["chrB"] * 200 + ["chrA"] * 10  # the order given
    assert "".join(row[2] for row in table[201:]) == genome["chrA"][10:20]
    values = {(row[0], int(row[1])): row[3] for row in table[1:]}
    assert {(contig, int(end)): value for contig, _, end, value in graph} == {
        at: value for at, value in values.items() if value != "NA"
    }
    assert [at for at, value in values.items() if value == "NA"] == [("chrB", 501), ("chrA", 11)]


def bits(out: str) -> dict[int, float]:
    return {int(line.split("\t")[1]): float(line.split("\t")[3]) for line in out.splitlines()}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_both_strands_are_the_mean_of_either(
    world: World, masked: Path, run_cli: RunCli, tmp_path: Path, kind: str
) -> None:
    model = world.pretrained if kind == "causal" else masked
    words = ("likelihood", "-r", world.reference, "-m", model, "-b", tmp_path / "x.bed", "--window", 50)
    (tmp_path / "x.bed").write_text("chrA\t100\t250\tx\t0\t+\n")
    plus, both = bits(run_cli(*words).out), bits(run_cli(*words, "--both-strands").out)
    (tmp_path / "x.bed").write_text("chrA\t100\t250\tx\t0\t-\n")
    minus = bits(run_cli(*words).out)
    assert max(abs(plus[at] - minus[at]) for at in plus.keys() & minus.keys()) > 0.01
    assert both == bits(run_cli(*words, "--both-strands").out)
    assert list(both) == list(range(100, 250)) == sorted(plus.keys() | minus.keys())
    for at, value in both.items():
        given = [strand[at] for strand in (plus, minus) if at in strand]
        assert value == pytest.approx(sum(given) / len(given), abs=2e-5)
    edges = {100: len(minus) == 150, 249: len(plus) == 150}  # a causal model's first base
    assert all(edges.values()) or kind == "causal"


def test_a_contig_of_n_has_no_value(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    write_reference(tmp_path / "n.fa", {"c": "N" * 50, "d": "ACGNRTTA", "empty": ""})
    words = ("likelihood", "-r", tmp_path / "n.fa", "-m", world.pretrained)
    result = run_cli(*words)
    assert [line.split("\t")[:2] for line in result.out.splitlines()] == [["d", str(at)] for at in (1, 2, 5, 6, 7)]
    assert f"{tmp_path}/n.fa: SKIP_ZERO_LENGTH 1\n" in result.err
    alone = run_cli(*words, "--region", "c")
    assert (alone.code, alone.out, alone.err.splitlines()[-1]) == (0, "", "1 regions: no base")
    refused = run_cli(*words, "--region", "c", "-o", tmp_path / "n.bw")
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith(f"{tmp_path}/n.bw: there is no value to write; ")
    assert not (tmp_path / "n.bw").exists()


REFUSED = {
    "overlap": ("chrA\t5\t50\nchrB\t0\t9\nchrA\t40\t60\n", ".bw", "x.bed:3: region=chrA:41-60: it overlaps line 1, "),
    "duplicate": ("chrA\t5\t50\nchrA\t5\t50\n", ".bw", "x.bed:2: region=chrA:6-50: it overlaps line 1, "),
    "past the end": ("chrA\t9990\t10010\n", ".bw", "x.bed:1: end=10010: the region passes the end of chrA, "),
    "exponent": ("chrA\t1e3\t2000\n", ".bw", "x.bed:1: start=1e3: not a whole number"),
    "no common contig": ("1\t10\t20\n", ".bw", "x.bed: no contig in common: here 1; in "),
    "extension": ("chrA\t5\t50\n", ".wig", "out.wig: the extension names no format of tracks; use one of .bw, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_regions_are_refused_in_one_line(world: World, run_cli: RunCli, tmp_path: Path, name: str) -> None:
    text, suffix, line = REFUSED[name]
    (tmp_path / "x.bed").write_text(text)
    out = tmp_path / f"out{suffix}"
    result = run_cli(
        *("likelihood", "-r", world.reference, "-m", world.pretrained, "-b", tmp_path / "x.bed", "-o", out)
    )
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{tmp_path}/{line}")
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.bed"]


def test_a_table_keeps_overlaps_and_duplicates_in_order(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "x.bed").write_text("chrA\t5\t9\nchrA\t5\t9\nchrZ\t1\t2\nchrA\t7\t7\n")
    words = ("-r", world.reference, "-m", world.pretrained, "-b", tmp_path / "x.bed", "-o", tmp_path / "o.tsv")
    result = run_cli("likelihood", *words)
    assert result.code == 0, result.err
    rows = (tmp_path / "o.tsv").read_text().splitlines()[1:]
    assert len(rows) == 8
    assert rows[:4] == rows[4:]
    assert f"{tmp_path}/x.bed: SKIP_NO_CONTIG 1\n{tmp_path}/x.bed: SKIP_ZERO_LENGTH 1\n" in result.err
    again = run_cli("likelihood", *words)
    assert (again.code, (tmp_path / "o.tsv").read_text().splitlines()[1:]) == (2, rows)
    assert run_cli("likelihood", *words, "--force").code == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--region", "chrA:5"), "region=chrA:5: a position alone is ambiguous"),
        (("--region", "chrQ"), "region=chrQ: contig 'chrQ' is unknown"),
        (("--region", "chrA:9000-10001"), "end=10001: the region passes the end of chrA, which has 10000 bases"),
        (("--region", "chrA", "-b", __file__), "region: regions are named already by --regions"),
        (("--hide-every", "1"), "hide_every=1: it must be at least 2"),
        (("--window", "1"), "window=1: it must be at least 2"),
    ],
)
def test_bad_options_are_refused_in_one_line(world: World, run_cli: RunCli, words: tuple[str, ...], line: str) -> None:
    result = run_cli("likelihood", "-r", world.reference, "-m", world.pretrained, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_what_is_no_language_model_is_refused(
    world: World, masked: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_cli("likelihood", "-r", world.reference, "-m", world.classifier)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"{world.classifier}: it is no language model; give a run folder of `pretrain`\n"
    result = run_cli("likelihood", "-r", world.reference, "-m", masked, "--overlap", 64)
    assert result.err == "overlap=64: it must be less than the window, 64; lower it\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run_cli("likelihood", "-r", world.reference, "-m", world.pretrained, "--device", "gpu")
    assert (result.code, result.err.startswith("device=gpu: torch finds no GPU")) == (2, True)


def test_a_closed_pipe_ends_quietly(world: World) -> None:
    words = f"likelihood -r {world.reference} -m {world.pretrained} --device cpu"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m genomamba {words} | head -n 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")
    assert re.fullmatch(r"chrA\t1\t2\t[\d.]+\n", done.stdout)


@pytest.mark.parametrize("where", ["shard", "bigwig"])
def test_a_full_disk_leaves_no_bigwig(world: World, run_cli: RunCli, tmp_path: Path, where: str) -> None:
    words = f"likelihood -r {world.reference} -m {world.pretrained} --device cpu -o {tmp_path}/o.bw"
    limit = 20 if where == "shard" else 80  # of 1,024 bytes; 19,000 bases are 76,000 in a shard
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {limit}; {sys.executable} -m genomamba {words}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    if where == "shard":
        assert last.startswith(f"{tmp_path}/o.bw.shards: it could not be written (File too large); ")
        assert list(tmp_path.iterdir()) == []
        return
    assert last.startswith(f"{tmp_path}/o.bw: it could not be written (the bigWig library ")
    assert [path.name for path in tmp_path.iterdir()] == ["o.bw.shards"]
    assert run_cli(*words.split(), "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["o.bw"]
    assert sums(tmp_path / "o.bw")["chrB"][0] == 8_999


MEMORY = """
import json, resource, sys, torch
from genomamba.pipelines.cli import main
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
peaks = []
for region, out in (("c:1-40000", sys.argv[1]), ("c", sys.argv[2])):
    words = ["likelihood", "-r", sys.argv[3], "-m", sys.argv[4], "-o", out, "--region", region, "--window", "4096"]
    assert main([*words, "--both-strands"]) == 0
    peaks.append(peak())
print(json.dumps(peaks))
"""


def test_peak_memory_does_not_depend_on_the_contigs_length(tmp_path: Path) -> None:
    sequence = alphabet.decode(np.random.default_rng(0).integers(alphabet.A, alphabet.N, 440_000).astype(np.uint8))
    write_reference(tmp_path / "c.fa", {"c": sequence})
    model = CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=2, expand=1))
    save_model(model, tmp_path / "m", card="", provenance={})
    words = [str(tmp_path / name) for name in ("short.bw", "long.bw", "c.fa", "m")]
    done = subprocess.run([sys.executable, "-c", MEMORY, *words], capture_output=True, text=True, check=True)
    short, long = json.loads(done.stdout)
    # One activation of this model alone is 64 bytes per base: 25 MB for the 400,000 bases between the two.
    assert long - short < 8 * 2**20, (short, long)
    assert sums(tmp_path / "long.bw")["c"][0] == 440_000


def test_what_fails_in_the_middle_of_a_bigwig_is_not_swallowed(tmp_path: Path) -> None:
    def pieces(error: BaseException):  # type: ignore[no-untyped-def]
        yield TrackPiece("c", 0, np.ones(5000, np.float32))
        raise error

    for error in (ValueError("broken"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_bigwig(tmp_path / "x.bw", {"c": 9000}, pieces(error))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["likelihood", "predict"])
def test_a_missing_library_is_told_before_any_work(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "pybigtools", None)
    kind = CausalLM if command == "likelihood" else partial(TokenModel, tracks=["a", "b"])
    save_model(kind(ModelConfig(d_model=8, n_layer=1)), tmp_path / "m", card="", provenance={})
    (tmp_path / "m" / "model.safetensors").write_bytes(b"cut")  # so that reading it fails
    words = (command, "-r", world.reference, "-m", tmp_path / "m", "--device", "cpu")
    result = run_cli(*words, "-o", tmp_path / "o.bw")
    assert (result.code, result.err) == (
        2,
        "output: bigWigs are read and written by pybigtools, which is not installed; "
        "run `pip install pybigtools`, or name an output that ends in .bedgraph.gz\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert "cut or not safetensors" in run_cli(*words, "-o", tmp_path / "o.bedgraph").err


def test_a_bigwig_that_was_cut_off_unnoticed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the library fails aloud or in silence, as it comes."""
    library = pytest.importorskip("pybigtools")
    open_track = library.open

    def open_cut(path: str, mode: str = "r") -> Any:
        if mode == "r":
            os.truncate(path, 20)
        return open_track(path, mode)

    monkeypatch.setattr(library, "open", open_cut)
    with pytest.raises(OutputError, match=r"it could not be written \(the bigWig library failed"):
        write_bigwig(tmp_path / "x.bw", {"c": 4}, [TrackPiece("c", 0, np.arange(4.0))])
    assert list(tmp_path.iterdir()) == []
