"""A run that is killed goes on to the very bits of the run that was not."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from cli_process import start
from world import write_reference

STEPS = 14
SMALL = (
    f"--model.d_model 16 --model.n_layer 1 --model.d_state 4 --model.dropout 0.2 --window 64 --batch-size 3"
    f" --steps {STEPS} --validate-every 6 --checkpoint-every 2 --step-log --valid chrB:1-900 --device cpu"
).split()


class Run:
    """A command line that pretrains into a folder."""

    def __init__(self, reference: Path, folder: Path, *more: object) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.words = ("pretrain", "-r", reference, "-o", folder, *SMALL, *more)

    def start(self, *more: object, file_size_limit: int | None = None) -> BaseProcess:
        return start((*self.words, *more), self.log, file_size_limit=file_size_limit)

    def finish(self, *more: object, file_size_limit: int | None = None) -> int | None:
        process = self.start(*more, file_size_limit=file_size_limit)
        process.join(120)
        return process.exitcode

    def steps(self) -> list[str]:
        path = self.folder / "steps.tsv"
        return path.read_text().splitlines() if path.exists() else []

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("*.ckpt"))

    def weights(self) -> bytes:
        return (self.folder / "model.safetensors").read_bytes()

    def signal_after(self, steps: int, number: signal.Signals, *more: object) -> int | None:
        """Starts, sends the signal to the process group when so many steps are logged, and waits for the end."""
        process = self.start(*more)
        assert process.pid is not None
        deadline = time.monotonic() + 120
        while len(self.steps()) < steps and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.is_alive():
            os.killpg(process.pid, number)
        process.join(120)
        return process.exitcode


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> Path:
    return write_reference(tmp_path_factory.mktemp("resume") / "genome.fa", genome)


@pytest.fixture(scope="module")
def whole(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing disturbs."""
    run = Run(reference, tmp_path_factory.mktemp("whole") / "run")
    assert run.finish() == 0, run.log.read_text()
    assert len(run.steps()) == STEPS
    return run


def assert_same(run: Run, whole: Run) -> None:
    assert run.steps() == whole.steps()
    assert run.weights() == whole.weights()
    assert valid_figures(run) == valid_figures(whole)
    assert [step for step, _ in valid_figures(run)] == ["5", "11", "13"]


def valid_figures(run: Run) -> list[tuple[str, str]]:
    rows = csv.DictReader((run.folder / "metrics.csv").read_text().splitlines())
    return [(row["step"], row["valid_bits_per_base"]) for row in rows if row["valid_bits_per_base"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_twice_and_resumed_twice(workers: int, whole: Run, reference: Path, tmp_path: Path) -> None:
    run = Run(reference, tmp_path / "run", "-@", workers)
    dice = random.Random(workers)
    assert run.signal_after(dice.randint(1, 5), signal.SIGKILL) == -signal.SIGKILL
    # Resumed with the other number of workers, and killed across the epoch's end.
    assert run.signal_after(dice.randint(7, 11), signal.SIGKILL, "--resume", "-@", 2 - workers) == -signal.SIGKILL
    assert run.finish() == 2
    assert "an unfinished run left its checkpoints here; go on with --resume, or begin anew with --force" in (
        run.log.read_text()
    )
    unfinished = run.folder / "checkpoints" / ".step-000000099.ckpt.x.tmp"
    unfinished.write_bytes(b"of a save that was killed")
    assert run.finish("--resume") == 0, run.log.read_text()
    assert not unfinished.exists()
    assert "resuming after step" in run.log.read_text()
    assert_same(run, whole)
