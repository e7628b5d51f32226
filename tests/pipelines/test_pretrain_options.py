"""What a step is made of and how long a run lasts: micro-batches, recomputation, minutes, presets."""

from __future__ import annotations

import csv
import itertools
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from world import CliResult, RunCli

from genomamba.data.datasets import Batch
from genomamba.pipelines.options import PRESETS
from genomamba.tasks import time_budget, training_clock
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask

SMALL = (
    "--model.d_model 8 --model.n_layer 2 --model.d_state 2 --window 40 --batch-size 8 --steps 6 --validate-every 3"
    " --valid b --device cpu --step-log --softmask-weight 0.3"
).split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft-masked stretches, N's and short contigs, so that windows differ in the weight of their bases."""
    random = np.random.default_rng(0)
    bases = random.choice(list("ACGT"), 6000)
    bases[2000:3500] = np.char.lower(bases[2000:3500])
    bases[random.integers(0, 5000, 400)] = "N"
    path = tmp_path_factory.mktemp("options") / "genome.fa"
    path.write_text(
        f">a\n{''.join(bases[:5000])}\n>b\n{''.join(bases[5000:])}\n>c\nACGTACGTTTAGC\n>d\nCCATTTTGACGAAA\n"
    )
    return path


def steps(folder: Path) -> tuple[list[float], list[str]]:
    rows = [line.split("\t") for line in (folder / "steps.tsv").read_text().splitlines()]
    return [float.fromhex(row[1]) for row in rows], [row[2] for row in rows]


def pretrain(run_cli: RunCli, reference: Path, folder: Path, *more: object) -> CliResult:
    return run_cli("pretrain", "-r", reference, "-o", folder, *SMALL, *more)


@pytest.fixture
def plain(run_cli: RunCli, reference: Path, tmp_path: Path) -> Path:
    assert pretrain(run_cli, reference, tmp_path / "plain").code == 0
    return tmp_path / "plain"


def test_a_step_in_parts_is_the_same_step(run_cli: RunCli, reference: Path, plain: Path, tmp_path: Path) -> None:
    assert pretrain(run_cli, reference, tmp_path / "parts", "--accumulate", 4).code == 0
    (whole, windows), (parts, same_windows) = steps(plain), steps(tmp_path / "parts")
    assert same_windows == windows
    assert len(whole) == 6
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    assert max(whole) - min(whole) > 1e-3


def test_a_run_stopped_within_a_step_goes_on_from_its_beginning(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = ("--accumulate", 4, "--model.dropout", 0.2)
    assert pretrain(run_cli, reference, tmp_path / "whole", *dropout).code == 0
    step, calls = PretrainTask.training_step, itertools.count()

    def stopped(*args: object) -> torch.Tensor:
        if next(calls) == 9:  # in the third step
            signal.raise_signal(signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", stopped)
        result = pretrain(run_cli, reference, tmp_path / "cut", *dropout)
    assert result.code == 128 + signal.SIGTERM
    assert "after step 3;" in result.err
    assert pretrain(run_cli, reference, tmp_path / "cut", *dropout, "--resume").code == 0
    for name in ("steps.tsv", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_recomputed_activations_give_the_same_bits(
    run_cli: RunCli, reference: Path, plain: Path, tmp_path: Path
) -> None:
    assert pretrain(run_cli, reference, tmp_path / "again", "--activation-checkpointing").code == 0
    assert steps(tmp_path / "again") == steps(plain)


def test_parts_divide_the_batch(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    result = pretrain(run_cli, reference, tmp_path / "run", "--accumulate", 3)
    assert result.code == 2
    assert result.err == "accumulate=3: 3 parts on 1 devices do not divide the batch of 8 windows; change one of them\n"
    result = pretrain(run_cli, reference, tmp_path / "run", "--max-minutes", 0)
    assert result.code == 2
    assert result.err.startswith("max_minutes=0.0: it must be more than 0")
    assert not (tmp_path / "run").exists()


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that has gone on by ``seconds`` whenever it is looked at."""
    clock = itertools.count()
    for module in (time_budget, training_clock):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock) * seconds))
    monkeypatch.setattr(time_budget, "_LOOP", 0.0)


def minutes(n_steps: float, seconds: float) -> float:
    return (n_steps + 0.5) * seconds / 60


def test_minutes_become_steps_and_the_schedule_ends_with_them(
    run_cli: RunCli, reference: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, 0.25)
    words = [word for word in SMALL if word not in ("--steps", "6")]
    given = ("pretrain", "-r", reference, "-o", tmp_path / "timed", *words, "--max-minutes", minutes(6, 0.25))
    result = run_cli(*given)
    assert result.code == 0, result.err
    assert "6 steps fit into" in result.err
    assert yaml.safe_load((tmp_path / "timed" / "run.yaml").read_text())["steps"] == 6
    assert (tmp_path / "timed" / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    ticking(monkeypatch, 0.5)  # another machine
    result = run_cli(*given, "--resume")
    assert result.code == 0, result.err
    assert "resuming after step 6\n" in result.err


def test_memory_that_runs_out_while_steps_are_measured_is_explained(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(time_budget, "whole_step", full)
    result = pretrain(run_cli, reference, tmp_path / "run", "--max-minutes", 1)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("batch_size=8: memory ran out on cpu with 8 windows of 40 bases")
    assert not (tmp_path / "run").exists()


def test_a_run_slower_than_measured_ends_in_time_and_stays_ended(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "affordable_steps", lambda *_: 6)
    ticking(monkeypatch, 0.25)
    given = (run_cli, reference, tmp_path / "run", "--max-minutes", minutes(3.5, 0.25))
    result = pretrain(*given)
    assert result.code == 0, result.err
    assert "after 5 steps" in result.err  # the first does not count, and the fifth began in time
    bits = float(result.err.split("bits per base")[0].split()[-1])
    assert math.isfinite(bits)
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    result = pretrain(*given, "--resume")
    assert result.code == 0, result.err
    assert "after 5 steps" in result.err
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_minutes_are_those_of_all_parts_of_a_run_together(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every other step, each part has one step that does not count and one that does."""
    monkeypatch.setattr(time_budget, "affordable_steps", lambda *_: 20)
    ticking(monkeypatch, 0.25)
    words = [word for word in SMALL if word not in ("--steps", "6")]
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *words, "--max-minutes", minutes(3.5, 0.25))
    step, calls = PretrainTask.training_step, itertools.count(1)

    def stopped(*args: object) -> torch.Tensor:
        if next(calls) in (2, 4, 6):
            signal.raise_signal(signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainTask, "training_step", stopped)
    codes = [run_cli(*given).code, *(run_cli(*given, "--resume").code for _ in range(3))]
    assert codes == [143, 143, 143, 0]
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        logged = [(int(row["step"]), row["train_seconds"]) for row in csv.DictReader(stream) if row["train_seconds"]]
    assert logged == [(2, "0.25"), (4, "0.5"), (5, "0.75"), (7, "1.0")]  # validations are after steps 3, 6 and 8
    assert len(steps(tmp_path / "run")[0]) == 8


@pytest.mark.parametrize("stop", [False, True])
def test_the_schedule_of_a_run_slower_than_measured_keeps_up_with_its_time(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    monkeypatch.setattr(time_budget, "affordable_steps", lambda *_: 60)
    ticking(monkeypatch, 0.25)
    words = [word for word in SMALL if word not in ("--steps", "6")]
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *words, "--max-minutes", minutes(8.5, 0.25))
    step, calls = PretrainTask.training_step, itertools.count(1)

    def stopped(*args: object) -> torch.Tensor:
        if stop and next(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(PretrainTask, "training_step", stopped)
    codes = [run_cli(*given).code, *([run_cli(*given, "--resume").code] if stop else [])]
    assert codes == ([143, 0] if stop else [0])
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        rates = {int(row["step"]): float(row["lr"]) for row in csv.DictReader(stream) if row["lr"]}
    # Counted steps before the one before: not the first of a process.
    gone = {4: 2 / 9, 9: (6 if stop else 7) / 9}
    config = OptimizerConfig()
    for number, rate in rates.items():
        _, schedule = make_optimizer(torch.nn.Linear(2, 2), config, 60, clock=lambda: gone[number])  # noqa: B023
        assert rate == pytest.approx(config.lr * schedule.lr_lambdas[0](number))
    assert rates[9] < 0.35 * config.lr  # which 60 steps would come to after 40
    assert len(rates) == 2


def test_each_length_of_window_has_its_share_of_the_minutes(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps on windows of 20 or 10 bases take 5 and 9 times as long as those on 40."""
    now, whole_step = [0.0], time_budget.whole_step

    def slow(task: object, optimizer: object, batch: Batch, *rest: object) -> torch.Tensor:
        now[0] += {40: 1.0, 20: 5.0, 10: 9.0}[batch.ids.shape[1]]
        return whole_step(task, optimizer, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(time_budget, "whole_step", slow)
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(time_budget, "_LOOP", 0.0)
    growing = ("--first-window", 10, "--short-share", 0.5, "--max-minutes", 4.01 * (0.25 * 9 + 0.25 * 5 + 0.5) / 60)
    result = pretrain(run_cli, reference, tmp_path / "run", *growing)
    assert result.code == 0, result.err
    assert "4 steps fit into" in result.err
    lengths = [len(windows.split()) for windows in steps(tmp_path / "run")[1]]
    assert lengths == [32, 16, 8, 8]


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("pretrain_*.yaml")))
def test_presets_train(preset: str, run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    """At their settings but for their size and the regions of their genomes."""
    smaller = "--device cpu --window 64 --batch-size 2 --steps 2 --model.d_model 8 --model.n_layer 1 --workers 0"
    other = "--valid a:1-64 --test b:1-64"
    words = [*smaller.split(), *other.split()]
    result = run_cli("pretrain", "-c", preset, "-r", reference, "-o", tmp_path / "run", *words)
    assert result.code == 0, result.err
    if not torch.cuda.is_available() and preset != "pretrain_tiny":
        result = run_cli("pretrain", "-c", preset, "-r", reference, "-o", tmp_path / "gpu")
        assert result.code == 2
        assert result.err.startswith("device=gpu: torch finds no GPU; use --device cpu")
