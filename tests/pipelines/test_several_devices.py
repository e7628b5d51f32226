"""Two processes that share each step are the one process that does it alone; they stop and go on together."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from cli_process import start
from world import RunCli, write_reference

from genomamba.data.datasets import RunSampler, shared_batches
from genomamba.tasks.device import check_devices
from genomamba.tasks.pretrain import PretrainTask

SMALL = (
    "--model.d_model 8 --model.n_layer 2 --model.d_state 2 --window 48 --batch-size 8 --steps 6 --validate-every 4"
    " --softmask-weight 0.5 --valid chrB:1-300 --device cpu --step-log"
).split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(2)
    bases = random.choice(list("ACGTacgt"), 6000)  # ranks get windows of different weight
    path = tmp_path_factory.mktemp("devices") / "genome.fa"
    return write_reference(path, {"chrA": "".join(bases[:5000]), "chrB": "".join(bases[5000:])})


def test_ranks_share_samples_without_duplicates_or_gaps() -> None:
    alone = list(RunSampler(48, 20, 16))
    ranks = [list(RunSampler(48, 20, 16, block=4, rank=rank, ranks=2)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(RunSampler(48, 20, 16, block=4, rank=1, ranks=2)) == 16
    blocks = [keys[start : start + 4] for start in range(0, 16, 4) for keys in ranks]
    assert list(itertools.chain(*blocks)) == alone


@pytest.mark.parametrize("count", [0, 1, 4, 9, 16, 17])
def test_validation_is_shared_in_as_many_batches_each(count: int) -> None:
    ranks = [shared_batches(count, 4, rank, 3) for rank in range(3)]
    assert len({len(batches) for batches in ranks}) == 1
    seen = [number for batches in ranks for batch in batches for number in batch if number is not None]
    assert sorted(seen) == list(range(count))


def losses(folder: Path) -> list[float]:
    return [float.fromhex(line.split("\t")[1]) for line in (folder / "steps.tsv").read_text().splitlines()]


def windows(folder: Path) -> list[list[str]]:
    """The windows of each step, of all ranks."""
    logs = [path.read_text().splitlines() for path in sorted(folder.glob("steps*.tsv"))]
    return [sorted(word for line in step for word in line.split("\t")[2].split()) for step in zip(*logs, strict=True)]


def validation(folder: Path) -> list[float]:
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("valid_bits_per_base")
    return [float(row[column]) for row in rows[1:] if row[column]]


@pytest.fixture(scope="module")
def alone(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from genomamba.pipelines.cli import main

    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main(["pretrain", "-r", str(reference), "-o", str(folder), *SMALL]) == 0
    return folder


@pytest.mark.parametrize("more", [("--strategy", "ddp"), ("--strategy", "fsdp", "--accumulate", "2")])
def test_two_processes_are_one_and_go_on_after_a_signal(
    more: tuple[str, ...],
    alone: Path,
    reference: Path,
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, "--devices", 2, *more)
    step, calls = PretrainTask.training_step, itertools.count()

    def stopped(*args: object) -> torch.Tensor:
        if next(calls) == 4:  # only the first rank hears it
            signal.raise_signal(signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", stopped)
        result = run_cli(*given)
    assert result.code == 128 + signal.SIGTERM, result.err
    assert "stopped by SIGTERM after step" in result.err
    result = run_cli(*given, "--resume")
    assert result.code == 0, result.err
    assert "resuming after step" in result.err
    assert windows(tmp_path / "run") == windows(alone)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-6)
    np.testing.assert_allclose(validation(tmp_path / "run"), validation(alone), rtol=1e-6)
    ours, theirs = (safetensors.numpy.load_file(f / "model.safetensors") for f in (tmp_path / "run", alone))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_to_the_process_group_stops_both(
    workers: int, alone: Path, reference: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = ("pretrain", "-r", reference, "-o", run, *SMALL, "--devices", 2, "-@", workers)
    process = start((*given, "--checkpoint-every", 1), tmp_path / "log")
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/*.ckpt")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM, (tmp_path / "log").read_text()
    assert "stopped by SIGTERM after step" in (tmp_path / "log").read_text().splitlines()[-1]
    assert run_cli(*given, "--resume").code == 0
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-6)


def test_devices_are_checked_before_anything_begins(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL)
    result = run_cli(*given, "--devices", 3)
    assert result.code == 2
    assert result.err.startswith("accumulate=1: 1 parts on 3 devices do not divide the batch of 8 windows")
    result = run_cli(*given, "--strategy", "fsdp")
    assert result.code == 2
    assert result.err.startswith("strategy=fsdp: one device shares with no other")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Exception, match="devices=2: there are 1 GPUs"):
        check_devices("auto", 2, torch.device("cuda"))
    assert not (tmp_path / "run").exists()
