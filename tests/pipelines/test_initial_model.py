"""Training from another model's weights: whatever format they are in, and what a run that goes on needs of them."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from world import CliResult, RunCli, World

from genomamba.model.folder import weights_fingerprint
from genomamba.tasks.pretrain import PretrainTask

SMALL = "--window 32 --batch-size 2 --steps 3 --device cpu".split()


def started_from(run: Path) -> dict[str, str]:
    return json.loads((run / "provenance.json").read_text())["started_from"]


def test_weights_in_other_formats(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    result = run_cli("export", "-m", world.pretrained, "--to", "state-spaces", "-o", theirs)
    assert result.code == 0, result.err
    for name, given in (("folder", theirs), ("file", theirs / "pytorch_model.bin")):
        result = run_cli("pretrain", "-r", world.reference, "-o", tmp_path / name, *SMALL, "--init", given)
        assert result.code == 0, result.err
        assert started_from(tmp_path / name) == {"path": str(given), "weights": weights_fingerprint(world.pretrained)}


def cut(
    run_cli: RunCli,
    world: World,
    folder: Path,
    init: Path,
    *,
    step: int,
    patch: pytest.MonkeyPatch,
    more: tuple[object, ...] = (),
) -> tuple[CliResult, tuple[object, ...]]:
    """Stops a run within a step; also the words that resume it."""
    words = ("pretrain", "-r", world.reference, "-o", folder, *SMALL, "--init", init, *more)
    training_step, calls = PretrainTask.training_step, itertools.count(1)

    def stopped(*args: object) -> torch.Tensor:
        if next(calls) == step:
            signal.raise_signal(signal.SIGTERM)
        return training_step(*args)  # type: ignore[arg-type]

    with patch.context() as patched:
        patched.setattr(PretrainTask, "training_step", stopped)
        return run_cli(*words), (*words, "--resume")


def test_a_run_goes_on_without_the_model_that_it_started_from(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, run = Path(shutil.copytree(world.pretrained, tmp_path / "init")), tmp_path / "run"
    stopped, again = cut(run_cli, world, run, init, step=2, patch=monkeypatch)
    assert stopped.code == 128 + signal.SIGTERM
    whole = run_cli("pretrain", "-r", world.reference, "-o", tmp_path / "whole", *SMALL, "--init", init)
    assert whole.code == 0, whole.err
    shutil.rmtree(init)
    result = run_cli(*again)
    assert result.code == 0, result.err
    assert "resuming after step 2" in result.err
    assert started_from(run) == {"path": str(init), "weights": weights_fingerprint(world.pretrained)}
    assert weights_fingerprint(run) == weights_fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["checkpoints", "started_from.json"])
def test_a_run_does_not_go_on_from_other_weights(
    lost: str, world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has to read them again: nothing was saved, or nothing says what they were but the checkpoint."""
    init, run = Path(shutil.copytree(world.pretrained, tmp_path / "init")), tmp_path / "run"
    stopped, again = cut(run_cli, world, run, init, step=2, patch=monkeypatch)
    assert stopped.code == 128 + signal.SIGTERM
    began = weights_fingerprint(init)
    weights = safetensors.torch.load_file(init / "model.safetensors")
    safetensors.torch.save_file({name: 2 * tensor for name, tensor in weights.items()}, init / "model.safetensors")
    if lost == "checkpoints":
        shutil.rmtree(run / lost)
    else:
        (run / lost).unlink()
    result = run_cli(*again)
    assert result.code == 2
    assert began in result.err.splitlines()[-1]
    assert "start a new run" in result.err.splitlines()[-1]


def model_of(run: Path) -> dict[str, object]:
    return json.loads((run / "config.json").read_text())["model"]


def test_regularisation_is_the_runs_own(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    """It is at work in training, changes none of the weights begun with, and may be given up again."""
    words = ("pretrain", "-r", world.reference, *SMALL, "--init", world.pretrained, "-o")
    drop = ("--model.dropout", 0.4, "--model.drop_path", 0.3)
    for name, more in (("plain", ()), ("dropped", drop), ("still", (*drop, "--optimizer.lr", 0))):
        result = run_cli(*words, tmp_path / name, *more)
        assert result.code == 0, result.err
    assert model_of(tmp_path / "plain") == model_of(world.pretrained)
    assert model_of(tmp_path / "dropped") == model_of(world.pretrained) | {"dropout": 0.4, "drop_path": 0.3}
    weights = {name: weights_fingerprint(tmp_path / name) for name in ("plain", "dropped", "still")}
    assert weights["still"] == weights_fingerprint(world.pretrained)
    assert len(set(weights.values())) == 3
    again = run_cli("pretrain", "-c", tmp_path / "dropped" / "run.yaml", "-o", tmp_path / "again")
    assert again.code == 0, again.err
    assert weights_fingerprint(tmp_path / "again") == weights["dropped"]
    last = run_cli(
        "pretrain", "-r", world.reference, *SMALL, "--init", tmp_path / "dropped", "--model.dropout", 0.1,
        "-o", tmp_path / "last",
    )  # fmt: skip
    assert last.code == 0, last.err
    assert "model.drop_path=0: the model of --init has 0.3, which is not taken over" in last.err
    assert model_of(tmp_path / "last") == model_of(world.pretrained) | {"dropout": 0.1}


def test_a_run_goes_on_with_its_regularisation(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, run = ("--model.dropout", 0.4), tmp_path / "run"
    stopped, again = cut(run_cli, world, run, world.pretrained, step=2, patch=monkeypatch, more=drop)
    assert stopped.code == 128 + signal.SIGTERM
    other = run_cli(*(0.1 if word == 0.4 else word for word in again))
    assert other.code == 2
    assert other.err.startswith(f"{run}/run.yaml: model.dropout=0.1: the run began with 0.4; resume with ")
    assert other.err.count("\n") == 1
    result = run_cli(*again)
    assert result.code == 0, result.err
    whole = ("pretrain", "-r", world.reference, *SMALL, "--init", world.pretrained, *drop, "-o", tmp_path / "whole")
    assert run_cli(*whole).code == 0
    assert weights_fingerprint(run) == weights_fingerprint(tmp_path / "whole")
