"""Models of tracks: trained from bigWigs, and measured as `predict` writes them, through the command line."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from world import RunCli, World, write_reference

from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.genome import alphabet
from genomamba.model.folder import load_model
from genomamba.model.sequence_heads import TokenModel
from genomamba.pipelines.cli import main
from genomamba.tasks.tracks import TrackTask

pytest.importorskip("pybigtools")
ARCHITECTURE = "--architecture.d_model 16 --architecture.n_layer 1 --architecture.d_state 4".split()
HELD_OUT = "--valid chrB:1-4000 --test chrB:4001-9000".split()
QUICK = "--window 128 --batch-size 8 --epochs 6 --optimizer.lr 2e-2 --device cpu --both-strands false".split()
TEST = slice(4000, 9000)
LOOK = 8  # bases


class Land(NamedTuple):
    """Tracks on the world's genome, and a model of one."""

    reference: Path
    folder: Path
    values: dict[str, dict[str, NDArray[np.float32]]]
    words: tuple[object, ...]  # of a fine-tuning, but for its tracks and its output

    def track(self, name: str) -> Path:
        return self.folder / f"{name}.bw"


def gc_before(sequence: str) -> NDArray[np.float32]:
    """Share of G and C among the LOOK bases that end at each."""
    is_gc = np.array([letter in "GC" for letter in sequence], dtype=float)
    return np.convolve(is_gc, np.ones(LOOK) / LOOK)[: len(sequence)].astype(np.float32)


def write(path: Path, values: Mapping[str, NDArray]) -> Path:
    pieces = [TrackPiece(name, 0, np.asarray(own, dtype=np.float32)) for name, own in values.items()]
    write_bigwig(path, {name: len(own) for name, own in values.items()}, pieces)
    return path


@pytest.fixture(scope="module")
def land(world: World, genome: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Land:
    folder = tmp_path_factory.mktemp("tracks")
    random = np.random.default_rng(0)
    gc = {name: gc_before(sequence) for name, sequence in genome.items()}
    values = {
        "gc": gc,
        "shuffled": {name: random.permutation(own) for name, own in gc.items()},
        "counts": {name: random.poisson(40 * own**2).astype(np.float32) for name, own in gc.items()},
        "high": {name: 1000 * (0.2 + own) for name, own in gc.items()},
    }
    for name, own in values.items():
        write(folder / f"{name}.bw", own)
    made = Land(
        world.reference,
        folder,
        values,
        ("finetune", "tracks", "-r", world.reference, *ARCHITECTURE, *HELD_OUT, *QUICK),
    )
    given = [*made.words, "--tracks", made.track("gc"), "-o", folder / "model"]
    assert main([str(word) for word in given]) == 0
    return made


def figures(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((folder / "provenance.json").read_text())["figures"]


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def predicted(run_cli: RunCli, land: Land, model: Path, out: Path, track: str = "") -> NDArray[np.float32]:
    """Of the test region, as `predict` writes it."""
    library = pytest.importorskip("pyBigWig")
    words = ("predict", "-r", land.reference, "-m", model, "--region", "chrB:4001-9000", "--device", "cpu")
    result = run_cli(*words, "-o", out)
    assert result.code == 0, result.err
    with library.open(str(out.with_suffix(f"{track}.bw"))) as file:
        return file.values("chrB", TEST.start, TEST.stop, numpy=True)


def test_what_sequence_decides_is_learnt_and_what_it_does_not_is_not(
    run_cli: RunCli, land: Land, tmp_path: Path
) -> None:
    for split in figures(land.folder / "model").values():
        (found,) = split
        assert found["pearson"] > 0.8
        assert found["loss"] < 0.5 * found["baseline"]
    result = run_cli(*land.words, "--tracks", land.track("shuffled"), "-o", tmp_path / "m")
    assert result.code == 0, result.err
    for split in figures(tmp_path / "m").values():
        assert abs(split[0]["pearson"]) < 0.1
        assert split[0]["loss"] > 0.95 * split[0]["baseline"]


def test_figures_are_those_of_what_predict_writes(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    model = land.folder / "model"
    found = predicted(run_cli, land, model, tmp_path / "o.bw")
    api = load_model(model)
    assert isinstance(api, TokenModel)
    truth = land.values["gc"]["chrB"][TEST]
    sequence = land.reference.read_text().split(">chrB\n")[1].replace("\n", "")[TEST]
    with torch.no_grad():
        expected = api(torch.from_numpy(alphabet.encode(sequence))[None])[0, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    mean = land.values["gc"]["chrA"].astype(float).mean()
    (figure,) = figures(model)["test"]
    assert figure["bases"] == 5000
    assert figure["pearson"] == pytest.approx(np.corrcoef(found, truth)[0, 1], abs=1e-5)
    assert figure["loss"] == pytest.approx(np.square(found - truth).mean(), rel=1e-4)
    assert figure["baseline"] == pytest.approx(np.square(mean - truth).mean(), rel=1e-6)


def test_what_made_it_is_kept_and_shown(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    given = (*land.words, "--tracks", f"sum={land.track('gc')}", "--epochs", 1, "-o", tmp_path / "m")
    result = run_cli(*given)
    assert result.code == 0, result.err
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    mean = land.values["gc"]["chrA"].astype(float).mean()
    track = made["tracks"]["sum"]
    assert (track["path"], track["valued"], track["counted"]) == (str(land.track("gc")), 10_000, 10_000)
    assert track["mean"] == pytest.approx(mean, rel=1e-9)
    assert track["sha256"] == hashlib.sha256(land.track("gc").read_bytes()).hexdigest()
    assert made["held_out"] == {"valid": ["chrB:1-4000"], "test": ["chrB:4001-9000"]}
    assert (made["trained_on_bases"], made["window"], made["pretrained"]) == (10_000, 128, None)
    assert "sum: a value at 100.0% of 10,000 training bases\n" in result.err
    rows = [line.split() for line in result.out.splitlines() if line.split()[:1] in (["valid"], ["test"])]
    assert [row[:3] for row in rows] == [["valid", "sum", "4,000"], ["test", "sum", "5,000"]]
    assert float(rows[1][3]) == pytest.approx(made["figures"]["test"][0]["pearson"], abs=6e-4)
    card = (tmp_path / "m" / "README.md").read_text()
    assert f"| test | sum | 5,000 | {rows[1][3]} |" in card
    again = run_cli("finetune", "tracks", "-c", tmp_path / "m" / "run.yaml", "-o", tmp_path / "n")
    assert again.code == 0, again.err
    assert again.out == result.out


@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
def test_the_same_command_gives_the_same_weights(run_cli: RunCli, land: Land, tmp_path: Path, more: list[str]) -> None:
    given = (*land.words, "--tracks", land.track("gc"), "-o")
    result = run_cli(*given, tmp_path / "m", *more)
    assert result.code == 0, result.err
    assert weights_of(tmp_path / "m") == weights_of(land.folder / "model")


def test_what_training_is_given_changes_it(run_cli: RunCli, land: Land, world: World, tmp_path: Path) -> None:
    given = (*land.words, "--tracks", land.track("gc"), "--epochs", 1, "-o")
    for name, words in {"plain": (), "seed": ("--seed", 1), "strands": ("--both-strands", "true")}.items():
        result = run_cli(*given, tmp_path / name, *words)
        assert result.code == 0, result.err
    assert len({weights_of(tmp_path / name) for name in ("plain", "seed", "strands")}) == 3
    frozen = ("finetune", "tracks", "-r", land.reference, *HELD_OUT, *QUICK, "-m", world.pretrained)
    for dropout in (0, 0.5):  # which what is not trained runs without
        words = ("--tracks", land.track("gc"), "--method", "head", "--dropout", dropout, "--epochs", 1)
        result = run_cli(*frozen, *words, "-o", tmp_path / str(dropout))
        assert result.code == 0, result.err
    assert weights_of(tmp_path / "0") == weights_of(tmp_path / "0.5")


def test_counts_have_rates_and_tracks_of_any_scale_learn_together(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    given = ("--tracks", land.track("counts"), f"dense={land.track('high')}", "-o", tmp_path / "m")
    result = run_cli(*land.words, *given, "--loss", "poisson")
    assert result.code == 0, result.err
    model = load_model(tmp_path / "m")
    assert isinstance(model, TokenModel)
    assert (model.tracks, model.link) == (("counts", "dense"), "log")
    counts, dense = figures(tmp_path / "m")["test"]
    assert min(counts["pearson"], dense["pearson"]) > 0.6
    assert counts["loss"] < counts["baseline"]
    found = predicted(run_cli, land, tmp_path / "m", tmp_path / "o.bw", ".counts")
    assert found.min() > 0
    truth = land.values["counts"]["chrB"][TEST]
    assert counts["loss"] == pytest.approx((found - truth * np.log(found)).mean(), rel=1e-4)
    assert found.mean() == pytest.approx(truth.mean(), rel=0.1)
    rates = predicted(run_cli, land, tmp_path / "m", tmp_path / "p.bw", ".dense")
    assert rates.mean() == pytest.approx(land.values["high"]["chrB"][TEST].mean(), rel=0.1)
    squared = run_cli(*land.words, "--tracks", land.track("high"), land.track("gc"), "-o", tmp_path / "s")
    assert squared.code == 0, squared.err
    high, gc = figures(tmp_path / "s")["test"]
    assert min(high["pearson"], gc["pearson"]) > 0.7
    assert high["loss"] == pytest.approx(1e6 * gc["loss"], rel=0.5)


def test_missing_values_are_left_out_or_zero(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    holes = {name: random.random(own.size) < 0.5 for name, own in land.values["gc"].items()}
    values = {name: np.where(holes[name], np.nan, own) for name, own in land.values["gc"].items()}
    values["chrA"][3000:] = np.nan
    track = write(tmp_path / "some.bw", values)
    found = {}
    for missing in ("skip", "zero"):
        given = ("--tracks", track, "-o", tmp_path / missing, "--missing", missing)
        result = run_cli(*land.words, *given, "--epoch-windows", 80, "--epochs", 6)
        assert result.code == 0, result.err
        share = np.isfinite(values["chrA"]).mean()
        assert f"some: a value at {share:.1%} of 10,000 training bases\nbases without a value are " in result.err
        (found[missing],) = figures(tmp_path / missing)["test"]
    there = np.isfinite(values["chrB"][TEST]).sum()
    assert (found["skip"]["bases"], found["zero"]["bases"]) == (there, 5000)
    assert found["skip"]["pearson"] > 0.7
    assert found["zero"]["pearson"] < 0.5
    mean = np.nan_to_num(values["chrA"].astype(float)).mean()
    zeros = np.nan_to_num(values["chrB"][TEST])
    assert found["zero"]["baseline"] == pytest.approx(np.square(zeros - mean).mean(), rel=1e-6)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_what_a_method_trains(run_cli: RunCli, land: Land, world: World, tmp_path: Path, method: str) -> None:
    pytest.importorskip("peft")
    given = ("finetune", "tracks", "-r", land.reference, *HELD_OUT, *QUICK, "--tracks", land.track("gc"))
    result = run_cli(*given, "-m", world.pretrained, "-o", tmp_path / "m", "--method", method, "--epochs", 2)
    assert result.code == 0, result.err
    before = load_file(world.pretrained / "model.safetensors")
    after = load_file(tmp_path / "m" / "model.safetensors")
    same = {name for name, tensor in before.items() if name in after and torch.equal(tensor, after[name])}
    projections = {name for name in before if "_proj.weight" in name and "dt_proj" not in name}
    backbone = {name for name in before if name.startswith("backbone.")}
    assert len(projections) > 4
    expected = {"full": set(), "head": backbone, "lora": backbone - projections}[method]
    assert same & backbone == expected
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    assert made["pretrained"]["path"] == str(world.pretrained)
    found = predicted(run_cli, land, tmp_path / "m", tmp_path / "o.bw")
    truth = land.values["gc"]["chrB"][TEST]
    assert made["figures"]["test"][0]["pearson"] == pytest.approx(np.corrcoef(found, truth)[0, 1], abs=1e-5)


def test_a_model_of_both_directions_and_strands_reads_overlapping_windows(
    run_cli: RunCli, land: Land, tmp_path: Path
) -> None:
    centred = {name: np.roll(own, -LOOK // 2) for name, own in land.values["gc"].items()}
    track = write(tmp_path / "c.bw", centred)
    both = ("--architecture.bidirectional", "true", "--architecture.rc_equivariant", "true", "--both-strands", "true")
    result = run_cli(*land.words, *both, "--tracks", track, "-o", tmp_path / "m", "--average", 0.9)
    assert result.code == 0, result.err
    (figure,) = figures(tmp_path / "m")["test"]
    assert figure["pearson"] > 0.7
    found = predicted(run_cli, land, tmp_path / "m", tmp_path / "o.bw")
    assert figure["pearson"] == pytest.approx(np.corrcoef(found, centred["chrB"][TEST])[0, 1], abs=1e-5)


def test_training_stays_in_its_regions_and_blocks_validate(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    (tmp_path / "r.bed").write_text("chrA\t0\t6000\nchrB\t3000\t9000\n")
    words = ("finetune", "tracks", "-r", land.reference, *ARCHITECTURE, *QUICK, "--tracks", land.track("gc"))
    regions = ("--regions", tmp_path / "r.bed", "--test", "chrB:8001-9000")
    blocks = ("--valid-blocks", 0.2, "--block-size", 500, "--epochs", 1)
    result = run_cli(*words, *regions, *blocks, "-o", tmp_path / "m")
    assert result.code == 0, result.err
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    bases = {name: sum(figure["bases"] for figure in own) for name, own in made["figures"].items()}
    assert bases == {"valid": 2000 + 500 * (bases["valid"] > 2000), "test": 1000}
    assert made["trained_on_bases"] == 11_000 - bases["valid"]
    refused = run_cli(*words, "--valid", "chrB:1-900", "--block-size", 9, "-o", tmp_path / "n")
    assert refused.err.startswith("block_size=9: it counts only with --valid-blocks; ")


def test_training_that_does_not_improve_ends_early(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    given = (*land.words, "--tracks", land.track("gc"), "--optimizer.lr", 0, "--epoch-windows", 8)
    result = run_cli(*given, "-o", tmp_path / "m", "--epochs", 50, "--patience", 2)
    assert result.code == 0, result.err
    with (tmp_path / "m" / "metrics.csv").open() as stream:
        assert len([row for row in csv.DictReader(stream) if row["valid_loss"]]) == 3
    result = run_cli(*given, "-o", tmp_path / "n", "--epochs", 100_000, "--max-minutes", 0.005)
    assert result.code == 0, result.err


def test_a_signal_keeps_the_best_so_far(
    run_cli: RunCli, land: Land, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = TrackTask.training_step, itertools.count()

    def stopped(*args: Any) -> torch.Tensor:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(*args)

    given = (*land.words, "--tracks", land.track("gc"), "-o", tmp_path / "m", "--epoch-windows", 8)
    with monkeypatch.context() as patch:
        patch.setattr(TrackTask, "training_step", stopped)
        result = run_cli(*given, "--epochs", 1000, "--patience", 1000)
    assert result.code == 128 + signal.SIGTERM, result.err
    assert "what was best until then is kept" in result.err
    assert figures(tmp_path / "m")["test"][0]["bases"] == 5000


def test_a_loss_that_is_not_finite_stops_and_names_windows(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    far = ("--optimizer.lr", "1e30", "--optimizer.clip", "1e30", "--optimizer.warmup", 0)
    failed = run_cli(*land.words, *far, "--tracks", land.track("gc"), "-o", tmp_path / "m")
    assert failed.code == 1
    assert "in windows chrA:" in failed.err
    assert "(+), chrA:" in failed.err
    assert not (tmp_path / "m").exists()


def test_mistakes_are_one_line_each_and_leave_nothing(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    gc = land.values["gc"]
    no_gaps = {"chrA": gc["chrA"], "chrB": gc["chrB"]}
    (tmp_path / "text.bw").write_text("fixedStep chrom=chrA start=1 step=1\n1\n")
    write(tmp_path / "other.bw", {"A": gc["chrA"]})
    write(tmp_path / "chrless.bw", {"hrA": gc["chrA"][:99], "chrB": gc["chrB"][:-1]})
    write(tmp_path / "below.bw", {**no_gaps, "chrB": np.where(np.arange(9000) == 4500, -1, gc["chrB"])})
    write(tmp_path / "even.bw", {name: np.full(own.size, 0.1) for name, own in gc.items()})
    write(tmp_path / "short.bw", {"chrA": gc["chrA"], "chrB": np.r_[np.full(4000, np.nan), gc["chrB"][4000:]]})
    write(tmp_path / "valid.bw", {"chrB": gc["chrB"]})
    mse, poisson = [], ["--loss", "poisson"]
    cases = [
        ("text.bw", mse, "{0}: it is no bigWig, or it is cut; give a whole bigWig"),
        ("none.bw", mse, "{0}: no such file; check the path and its permissions"),
        ("other.bw", mse, "{0}: no contig in common: here A; in {reference} chrA, chrB; pass --contig-aliases auto"),
        ("chrless.bw", mse, "{0}: contig=chrB: it has 8,999 bases here, and 9,000 in {reference}; give files of"),
        ("below.bw", poisson, "{0}: region=chrB:4501-4501: a value below 0, which is no count, -1; train with"),
        ("even.bw", poisson, "{0}: tracks=even: all of its values in the training regions are 0.1; give a track"),
        ("short.bw", mse, "{0}: tracks=short: it has no value in the validation regions; give other regions"),
        ("valid.bw", mse, "{0}: tracks=valid: it has no value in the training regions; give other regions"),
        ("valid.bw", ["--missing", "zero"], "{0}: tracks=valid: all of its values in the training regions are 0; "),
        ("even.bw", ["--average", "1"], "average=1.0: it must be below 1; lower it"),
        ("even.bw", ["--lora.rank", "4"], "lora.rank=4: it counts only with --method lora; "),
        ("even.bw", ["--method", "head"], "method=head: without a pretrained model there is nothing to keep; "),
        ("even.bw", ["--valid", "chrB", "--test", "chrA"], "train: no sequence is left to train on; "),
    ]
    before = sorted(tmp_path.rglob("*"))
    for name, options, expected in cases:
        path = tmp_path / name
        result = run_cli(*land.words, "--tracks", path, "-o", tmp_path / "m", *options)
        line = result.err.splitlines()[-1]
        wanted = expected.format(path, reference=land.reference)
        assert (result.code, line.startswith(wanted)) == (2, True), f"{line}\n{wanted}"
        assert sorted(tmp_path.rglob("*")) == before, expected
    nothing = ("finetune", "tracks", "-r", land.reference, "--tracks", tmp_path / "even.bw", "-o", tmp_path / "m")
    result = run_cli(*nothing)
    assert result.err.startswith("valid: nothing is held out to choose the epoch by; give --valid CONTIG")
    for word in ("a b=x.bw", "=x.bw", "a="):
        assert "its name cannot be that of a track; write NAME=FILE" in run_cli(*nothing, "--tracks", word).err
    twice = run_cli(*nothing, "--tracks", "x.bw", "/else=where/x.bigWig")
    assert twice.err == "tracks=/else=where/x.bigWig: there are two of the name x; write NAME=FILE\n"


def test_evaluate_gives_the_figures_of_training_and_of_any_regions_unseen(
    run_cli: RunCli, land: Land, tmp_path: Path
) -> None:
    model = land.folder / "model"
    words = ("evaluate", "tracks", "-r", land.reference, "-m", model, "--device", "cpu")
    result = run_cli(*words, "--tracks", land.track("gc"), "-o", tmp_path / "e.json")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["figures"] == figures(model)["test"]
    assert (found["regions"], found["loss"], found["missing"]) == (["chrB:4001-9000"], "mse", "skip")
    assert f" {found['figures'][0]['pearson']:.3f} " in result.out
    some = np.where(np.arange(9000) < 8000, land.values["gc"]["chrB"], np.nan)
    track = write(tmp_path / "some.bw", {"chrB": some})
    (tmp_path / "r.bed").write_text("chrB\t6000\t7000\nchrB\t6500\t8500\nchrQ\t0\t9\n")
    for missing, bases in (("skip", 2000), ("zero", 2500)):
        given = ("--tracks", f"gc={track}", "-b", tmp_path / "r.bed", "--missing", missing)
        result = run_cli(*words, *given, "-o", tmp_path / f"{missing}.json")
        assert result.code == 0, result.err
        (figure,) = json.loads((tmp_path / f"{missing}.json").read_text())["figures"]
        assert figure["bases"] == bases
    assert "SKIP_NO_CONTIG 1" in result.err
    constant = write(tmp_path / "flat.bw", {"chrB": np.ones(9000)})
    flat = run_cli(*words, "--tracks", f"gc={constant}")
    assert " NA " in flat.out
    other = run_cli(*words, "--tracks", land.track("shuffled"))
    assert other.err == "tracks=shuffled: the model has no track of that name; write NAME=FILE; it has gc\n"


def test_evaluate_measures_some_tracks_of_several(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    tracks = (land.track("shuffled"), land.track("gc"))
    result = run_cli(*land.words, "--tracks", *tracks, "-o", tmp_path / "m", "--epochs", 1)
    assert result.code == 0, result.err
    words = ("evaluate", "tracks", "-r", land.reference, "-m", tmp_path / "m", "--device", "cpu")
    result = run_cli(*words, "--tracks", land.track("gc"), "-o", tmp_path / "e.json")
    assert result.code == 0, result.err
    (found,) = json.loads((tmp_path / "e.json").read_text())["figures"]
    expected = figures(tmp_path / "m")["test"][1]
    assert (found.pop("track"), expected.pop("track")) == ("gc", "gc")
    assert found == pytest.approx(expected, rel=1e-9)  # sums of another layout round otherwise


@pytest.mark.parametrize(
    ("bed", "problem"),
    [
        ("chrA\t0\t10\nchrB\t4000\t4500\n", "10 of their bases are in {model}/training.bed, which the model has seen"),
        ("chrB\t3990\t4500\n", "10 of their bases are in {model}/valid.bed, which the model has seen; name others"),
    ],
)
def test_evaluate_refuses_what_was_seen(run_cli: RunCli, land: Land, tmp_path: Path, bed: str, problem: str) -> None:
    model = land.folder / "model"
    (tmp_path / "r.bed").write_text(bed)
    given = ("--tracks", land.track("gc"), "-m", model, "-b", tmp_path / "r.bed", "-o", tmp_path / "e.json")
    result = run_cli("evaluate", "tracks", "-r", land.reference, *given)
    wanted = f"{tmp_path}/r.bed: {problem.format(model=model)}"
    assert (result.code, result.err.splitlines()[-1].startswith(wanted)) == (2, True), result.err
    assert not (tmp_path / "e.json").exists()


def test_evaluate_on_another_genome_says_that_it_is_one(
    run_cli: RunCli, land: Land, genome: dict[str, str], tmp_path: Path
) -> None:
    other = write_reference(tmp_path / "g.fa", {"chrB": genome["chrB"], "chrZ": "ACGT" * 99})
    track = write(tmp_path / "gc.bw", {"chrB": land.values["gc"]["chrB"]})
    words = ("evaluate", "tracks", "-r", other, "--tracks", track, "-m", land.folder / "model", "--device", "cpu")
    refused = run_cli(*words)
    assert refused.err == "regions: the model was trained on another genome; name regions by a BED file\n"
    (tmp_path / "r.bed").write_text("chrB\t4000\t9000\n")
    result = run_cli(*words, "-b", tmp_path / "r.bed", "-o", tmp_path / "e.json")
    assert result.code == 0, result.err
    assert "the genome is not that of training; 0 of the regions' bases are in " in result.err
    assert json.loads((tmp_path / "e.json").read_text())["figures"] == figures(land.folder / "model")["test"]


@pytest.mark.gpu
def test_tracks_are_learnt_on_a_gpu_in_bf16(run_cli: RunCli, land: Land, tmp_path: Path) -> None:
    words = [word for word in land.words if word not in ("--device", "cpu")]
    given = ("--tracks", land.track("gc"), "--device", "gpu", "--precision", "bf16-mixed")
    for name in ("m", "again"):
        result = run_cli(*words, *given, "-o", tmp_path / name)
        assert result.code == 0, result.err
    assert figures(tmp_path / "m")["test"][0]["pearson"] > 0.7
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "again")
