"""The benchmark of pretraining from FASTA runs, and its figures are of one another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "pretrain_speed.py"


def test_a_small_run_is_measured_beside_its_step(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    words = "--cpu --rows 1 --windows 2 --steps 10 --d-model 8 --n-layer 1 --workers 0 --commit tried".split()
    done = subprocess.run([sys.executable, PROGRAM, *words, "--out", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert (found["machine"]["device"], found["machine"]["commit"]) == ("cpu", "tried")
    (row,) = found["sizes"]
    for way in ("run", "fixed_batch"):
        assert row[way]["Mbp_per_s"] * row[way]["step_ms"] * 1000 == pytest.approx(2 * 256, rel=0.2)
    assert row["run_of_fixed_batch"] == pytest.approx(row["fixed_batch"]["step_ms"] / row["run"]["step_ms"], rel=1e-3)
    assert row["plan"]["Mbp_per_s"] > 0
