"""Scoring on several devices: the same bytes as on one, also when a process is killed and the run goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import descendants
from world import SHARDS, RunCli, Words

from genomamba.errors import ConfigError
from genomamba.pipelines import device_engine
from genomamba.pipelines.device_engine import work_on_devices
from genomamba.pipelines.shard_scorer import ScoreRecipe
from genomamba.pipelines.shard_worker import RemoteError
from genomamba.pipelines.sharded import each_device
from genomamba.pipelines.shards import work_folder
from genomamba.scoring.causal_alleles import CausalAlleles, Rows

WORK = device_engine._work


@pytest.fixture(scope="module")
def alone(scoring: Words, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from genomamba.pipelines.cli import main

    out = tmp_path_factory.mktemp("alone") / "out.vcf.gz"
    assert main([str(word) for word in (*scoring, "-o", out)]) == 0
    return out.read_bytes()


def workers(pid: int) -> list[int]:
    return [child for child, name in descendants(pid) if "spawn_main" in name]


def test_two_processes_write_what_one_writes(scoring: Words, alone: bytes, run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "out.vcf.gz"
    result = run_cli(*scoring, "-o", out, "--devices", 2)
    assert result.code == 0, result.err
    assert "on 2 devices" in result.err
    assert out.read_bytes() == alone
    assert not work_folder(str(out)).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the process to kill in /proc")
@pytest.mark.parametrize(("victim", "then"), [("one of two", 2), ("the first process", 1)])
def test_killed_and_resumed(
    victim: str, then: int, scoring: Words, alone: bytes, run_cli: RunCli, tmp_path: Path
) -> None:
    out, log = tmp_path / "out.vcf.gz", tmp_path / "log"
    command = [sys.executable, "-m", "genomamba", *scoring, "-o", out, "--devices", 2]
    with log.open("w") as stream:
        process = subprocess.Popen([str(word) for word in command], stderr=stream, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None and len(list(work_folder(str(out)).glob("shard-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        both = workers(process.pid)
        assert len(both) == 2, log.read_text()
        os.kill(both[0] if victim == "one of two" else process.pid, signal.SIGKILL)
        code = process.wait(60)
        while any(Path(f"/proc/{pid}").exists() for pid in both):
            assert time.monotonic() < deadline, "a process outlived the one that started it"
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
    if victim == "one of two":
        assert code == 1
        assert log.read_text().splitlines()[-1] == (
            "the process at work on cpu ended with exit code -9; --resume goes on with what is done"
        )
    done = len(list(work_folder(str(out)).glob("shard-*.json")))
    assert 2 <= done < SHARDS
    assert not out.exists()
    result = run_cli(*scoring, "-o", out, "--devices", then, "--resume")
    assert result.code == 0, result.err
    assert out.read_bytes() == alone
    assert not work_folder(str(out)).exists()


def test_what_a_process_raises_is_raised_here(scoring: Words, tmp_path: Path) -> None:
    recipe = ScoreRecipe(str(tmp_path / "nowhere"), str(scoring[2]), False, {}, {"window": 64, "batch_size": 1})
    with pytest.raises(RemoteError, match=r"nowhere.*it is missing") as caught:
        work_on_devices(recipe, [(0, [])], lambda *_: None, ["cpu"])
    assert caught.value.exit_code == 2


def cramped(*args: Any) -> None:
    """What a process does on a device that holds few rows."""
    fits = CausalAlleles.__call__

    def small(self: CausalAlleles, rows: Rows) -> torch.Tensor:
        if rows.suffix.shape[0] > 16:
            raise torch.OutOfMemoryError
        return fits(self, rows)

    CausalAlleles.__call__ = small  # type: ignore[method-assign]
    WORK(*args)


def test_batches_that_were_halved_elsewhere_are_told(
    scoring: Words, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_engine, "_work", cramped)
    given = (*scoring, "--window", 64, "--shard-size", 80, "--batch-size", "auto", "--devices", 2)
    result = run_cli(*given, "-o", tmp_path / "out.vcf")
    assert result.code == 0, result.err
    told = re.search(r"batches of (\d+) did not fit the memory; they were halved to (\d+)\n", result.err)
    assert told is not None, result.err
    assert 1 <= int(told[2]) <= 8 < int(told[1])


def test_a_process_that_cannot_start_leaves_none(scoring: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = SpawnProcess.start, []

    def second_fails(self: SpawnProcess) -> None:
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        if begun:
            raise OSError("no more processes")
        start(self)
        begun.append(self)

    monkeypatch.setattr(SpawnProcess, "start", second_fails)
    recipe = ScoreRecipe("", "", False, {}, {})
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="no more processes"):
        work_on_devices(recipe, [], lambda *_: None, ["cpu", "cpu"])
    assert signal.getsignal(signal.SIGINT) == handler
    assert begun[0].exitcode == -signal.SIGKILL


def test_which_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert each_device("auto", cpu) == ["cpu"]
    assert each_device(3, cpu) == ["cpu"] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert each_device("auto", cuda) == each_device(2, cuda) == ["cuda:0", "cuda:1"]
    with pytest.raises(ConfigError, match="devices=3: there are 2 GPUs"):
        each_device(3, cuda)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("-o", "-"), "devices=2: stdout keeps no shards; give a file as -o\n"),
        (("-o", "o.vcf", "--engine", "ray"), "devices=2: Ray has actors; give --ray-actors\n"),
        (
            ("-o", "o.vcf", "--ray-actors", 2),
            "ray_actors=2: it counts only with --engine ray; give that too, or leave this out\n",
        ),
    ],
)
def test_what_devices_do_not_go_with(more: Words, line: str, scoring: Words, run_cli: RunCli) -> None:
    result = run_cli(*scoring, *more, "--devices", 2)
    assert (result.code, result.err) == (2, line)


@pytest.mark.gpu
def test_two_gpus_write_what_one_writes(scoring: Words, run_cli: RunCli, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    given = [word if word != "cpu" else "gpu" for word in scoring]
    for name, devices in (("one.vcf", 1), ("two.vcf", "auto")):
        result = run_cli(*given, "-o", tmp_path / name, "--devices", devices)
        assert result.code == 0, result.err
    assert (tmp_path / "one.vcf").read_bytes() == (tmp_path / "two.vcf").read_bytes()
