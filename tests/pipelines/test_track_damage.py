"""A model of tracks whose provenance.json is damaged: `evaluate tracks` names the file and the key, in a line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from world import RunCli, World

from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.pipelines.cli import main

pytest.importorskip("pybigtools")

NEEDED = {"reference.fingerprint", "tracks.a.mean", "loss", "missing", "window", "held_out"}


class Model:
    """One of the tracks a and b, to be damaged."""

    def __init__(self, folder: Path, reference: Path, tracks: Path) -> None:
        self.folder, self.reference, self.tracks = folder, reference, tracks
        self.path = folder / "provenance.json"
        self.whole: dict[str, Any] = json.loads(self.path.read_text())

    def words(self, *names: str) -> tuple[object, ...]:
        """Of a command that measures some tracks."""
        files = [self.tracks / f"{name}.bw" for name in names]
        return ("evaluate", "tracks", "-r", self.reference, "-m", self.folder, "--device", "cpu", "--tracks", *files)


@pytest.fixture(scope="module")
def trained_folder(world: World, genome: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    random = np.random.default_rng(0)
    sizes = {name: len(sequence) for name, sequence in genome.items()}
    for name in "ab":
        pieces = [TrackPiece(contig, 0, random.random(size, dtype=np.float32)) for contig, size in sizes.items()]
        write_bigwig(folder / f"{name}.bw", sizes, pieces)
    small = "--architecture.d_model 8 --architecture.n_layer 1 --window 128 --epochs 1 --epoch-windows 8 --device cpu"
    held_out = "--valid chrB:1-500 --test chrB:501-600 --regions"
    (folder / "r.bed").write_text("chrA\t0\t2000\n")
    words = ("finetune", "tracks", "-r", world.reference, *small.split(), *held_out.split(), folder / "r.bed")
    given = (*words, "--tracks", folder / "a.bw", folder / "b.bw", "-o", folder / "model")
    assert main([str(word) for word in given]) == 0
    return folder


@pytest.fixture
def model(trained_folder: Path, world: World, tmp_path: Path) -> Model:
    shutil.copytree(trained_folder / "model", tmp_path / "model")
    return Model(tmp_path / "model", world.reference, trained_folder)


def keys(found: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key."""
    for key, value in found.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


def without(found: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    changed = inside = json.loads(json.dumps(found))
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    return changed


def test_whatever_key_is_missing_there_are_figures_or_the_key_is_named(model: Model, run_cli: RunCli) -> None:
    # What the run was configured with says nothing of the model that is not said elsewhere.
    damaged = [path for path in keys(model.whole) if path[0] != "configuration" or len(path) == 1]
    assert len(damaged) > 20
    named = set()
    for path in damaged:
        model.path.write_text(json.dumps(without(model.whole, path)))
        result = run_cli(*model.words("a"))
        if path == ("held_out", "test"):
            assert result.err == "regions: training held no test regions out; name regions by a BED file\n"
        elif result.code:
            told = re.fullmatch(rf"{model.path}: (\S+): the key is missing; [^\n]*\n", result.err)
            assert (result.code, told is not None) == (2, True), result.err
            assert told is not None
            assert told[1] == ".".join(path)
            named.add(told[1])
        else:
            assert result.code == 0, result.err
    assert named == NEEDED | {"reference", "tracks", "tracks.a"}


def test_a_track_that_nothing_is_known_of_is_told_where_it_is_measured(model: Model, run_cli: RunCli) -> None:
    model.path.write_text(json.dumps(without(model.whole, ("tracks", "b"))))
    for names, code in ((("a",), 0), (("b",), 2), (("a", "b"), 2)):
        result = run_cli(*model.words(*names))
        assert result.code == code, result.err
        assert ("tracks.b: the key is missing" in result.err) == (code == 2)
    named = run_cli("evaluate", "tracks", "-r", model.reference, "-m", model.folder, "--tracks", "c=there.is.none")
    assert (named.code, named.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"held_out": []}, "held_out=[]: expected keys and values; "),
        ({"held_out": {"test": "chrB"}}, "held_out.test=chrB: expected a list; "),
        ({"held_out": {"test": [1]}}, "held_out.test[0]=1: expected text; "),
        ({"tracks": ["a", "b"]}, "tracks="),
        ({"tracks": {"a": {"mean": None}}}, "tracks.a.mean"),
        ({"reference": "chr.fa"}, "reference=chr.fa: expected keys and values; "),
        ({"window": "128"}, "window=128: expected a whole number; "),
        ({"window": 0}, "window=0: it cannot be that; "),
        ({"loss": "huber"}, "loss=huber: it cannot be that; "),
        ({"missing": "mean"}, "missing=mean: it cannot be that; "),
    ],
)
def test_what_cannot_be_is_named(model: Model, run_cli: RunCli, damage: dict[str, Any], told: str) -> None:
    model.path.write_text(json.dumps({**model.whole, **damage}))
    result = run_cli(*model.words("a"))
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert result.err.startswith(f"{model.path}: {told}"), result.err


@pytest.mark.parametrize("name", ["training.bed", "valid.bed"])
def test_without_the_regions_that_were_seen_none_are_said_to_be_new(
    model: Model, run_cli: RunCli, tmp_path: Path, name: str
) -> None:
    (tmp_path / "r.bed").write_text("chrB\t500\t600\n")
    given = (*model.words("a"), "-b", tmp_path / "r.bed")
    assert run_cli(*given).code == 0
    (model.folder / name).unlink()
    result = run_cli(*given)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert name in result.err
