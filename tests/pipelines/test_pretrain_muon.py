"""A run with Muon: in parts, on two processes, stopped and gone on with, in bf16; and what it refuses."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from world import RunCli, write_reference

from genomamba.tasks.checkpoint_io import read_checkpoint
from genomamba.tasks.pretrain import PretrainTask

SMALL = (
    "--model.d_model 16 --model.n_layer 2 --model.d_state 2 --window 48 --batch-size 8 --steps 6 --validate-every 4"
    " --valid chrB:1-300 --device cpu --step-log --optimizer.name muon"
).split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(2)
    bases = "".join(random.choice(list("ACGT"), 5000))
    return write_reference(tmp_path_factory.mktemp("muon") / "genome.fa", {"chrA": bases[:4000], "chrB": bases[4000:]})


def losses(folder: Path) -> list[float]:
    return [float.fromhex(line.split("\t")[1]) for line in (folder / "steps.tsv").read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_in_parts_that_is_stopped_goes_on_to_the_same_bits(
    reference: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(name: str) -> tuple[object, ...]:
        how = ("--accumulate", 2, "--precision", "bf16-mixed")
        return "pretrain", "-r", reference, "-o", tmp_path / name, *SMALL, *how

    result = run_cli(*given("whole"))
    assert result.code == 0, result.err
    step, calls = PretrainTask.training_step, itertools.count()

    def stopped(*args: object) -> torch.Tensor:
        if next(calls) == 5:  # in the third step
            signal.raise_signal(signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", stopped)
        assert run_cli(*given("cut")).code == 128 + signal.SIGTERM
    result = run_cli(*given("cut"), "--resume")
    assert result.code == 0, result.err
    assert "resuming after step" in result.err
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    checkpoint = read_checkpoint(tmp_path / "cut" / "checkpoints" / "step-000000006.ckpt")
    kept = [tensor for state in checkpoint["optimizer_states"][0]["state"].values() for tensor in state.items()]
    assert sum(name == "momentum_buffer" for name, _ in kept) == 6  # in_proj, x_proj and out_proj of two blocks
    assert {tensor.dtype for _, tensor in kept} == {torch.float32}


def test_two_processes_are_two_parts(reference: Path, run_cli: RunCli, tmp_path: Path) -> None:
    for name, how in (("parts", "--accumulate"), ("ranks", "--devices")):
        result = run_cli("pretrain", "-r", reference, "-o", tmp_path / name, *SMALL, how, 2)
        assert result.code == 0, result.err
    np.testing.assert_allclose(losses(tmp_path / "ranks"), losses(tmp_path / "parts"), rtol=1e-6)


def test_what_is_refused(reference: Path, run_cli: RunCli, tmp_path: Path) -> None:
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL)
    result = run_cli(*given, "--devices", 2, "--strategy", "fsdp")
    assert result.code == 2
    assert result.err.startswith("strategy=fsdp: each device has parts of matrices, and muon needs them whole")
    result = run_cli(*given, "--optimizer.name", "sgd")
    assert result.code == 2
    assert "optimizer.name" in result.err
    assert "adamw" in result.err
    assert not (tmp_path / "run").exists()
