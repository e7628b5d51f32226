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
    run_cli: RunCli, world: World, folder: Path, init: Path, *, step: int, patch: pytest.MonkeyPatch
) -> tuple[CliResult, tuple[object, ...]]:
    """Stops a run within a step; also the words that resume it."""
    words = ("pretrain", "-r", world.reference, "-o", folder, *SMALL, "--init", init)
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
