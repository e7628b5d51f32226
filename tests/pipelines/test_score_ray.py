"""Scoring on a local Ray cluster: the same bytes as here, also when a worker is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_process import descendants
from world import RunCli, Words

from genomamba.data.vcf import VcfReader
from genomamba.pipelines.ray_engine import Actor
from genomamba.pipelines.shard_scorer import ScoreRecipe
from genomamba.pipelines.shards import work_folder
from genomamba.scoring.causal_alleles import CausalAlleles, Rows

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[ray]'"
)


@needs_ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker to kill in /proc")
@pytest.mark.timeout(240)
def test_a_killed_worker_costs_nothing_but_time(scoring: Words, run_cli: RunCli, tmp_path: Path) -> None:
    here, there = tmp_path / "here.vcf", tmp_path / "there.vcf"
    assert run_cli(*scoring, "-o", here).code == 0
    command = [sys.executable, "-m", "genomamba", *scoring, "-o", there, "--engine", "ray", "--ray-actors", 1]
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([str(word) for word in command], stderr=stream, start_new_session=True)
    killed: list[int] = []
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            done = len(list(work_folder(str(there)).glob("shard-*")))
            if not killed and 1 <= done < 30:
                killed = [pid for pid, name in descendants(process.pid) if name.startswith("ray::") and "Map" in name]
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert process.poll() == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
    assert killed
    assert there.read_bytes() == here.read_bytes()
    assert not work_folder(str(there)).exists()


def test_an_actor_tells_of_batches_that_were_halved(scoring: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = CausalAlleles.__call__

    def small(self: CausalAlleles, rows: Rows) -> torch.Tensor:
        if rows.suffix.shape[0] > 16:
            raise torch.OutOfMemoryError
        return fits(self, rows)

    monkeypatch.setattr(CausalAlleles, "__call__", small)
    given = dict(zip(scoring[1::2], scoring[2::2], strict=True))
    options = {"window": 64, "batch_size": None}
    recipe = ScoreRecipe(str(given["-m"]), str(given["-r"]), False, {"chrA": "chrA", "chrB": "chrB"}, options)
    with VcfReader(str(given["-i"])) as reader:
        records = list(islice(reader, 40))
    answer = Actor(recipe, "cpu")({"number": np.array([7]), "records": np.array([json.dumps(records)])})
    assert answer["error"] == [""]
    planned, left = json.loads(answer["halved"][0])
    assert 1 <= left <= 8 < planned


@needs_ray
def test_a_cluster_that_is_not_there(scoring: Words, run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli(*scoring, "-o", tmp_path / "o.vcf", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("ray_address=127.0.0.1:1: Ray cannot be started or reached there")
    assert not list(tmp_path.iterdir())


def test_stdout_keeps_no_shards(scoring: Words, run_cli: RunCli) -> None:
    result = run_cli(*scoring, "-o", "-", "--engine", "ray")
    assert (result.code, result.err) == (2, "engine=ray: stdout keeps no shards; give a file as -o\n")


def test_without_ray_it_says_what_to_install(
    scoring: Words, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run_cli(*scoring, "-o", tmp_path / "o.vcf", "--engine", "ray")
    assert result.code == 2
    assert result.err.splitlines()[-1] == "engine=ray: Ray is not installed; run `pip install -e '.[ray]'`"
    assert not list(tmp_path.iterdir())
