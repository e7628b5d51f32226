"""What a run will need is said before it starts, and what will not fit does not start."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from world import RunCli, World

from genomamba.model.config import ModelConfig
from genomamba.pipelines import plan, pretrain
from genomamba.tasks import memory_check
from genomamba.tasks.cost_terms import Method, Work
from genomamba.tasks.costs import Cost, largest_window, plans, read_costs

MIB = 1 << 20
MODEL = "--model.d_model 48 --model.n_layer 3 --window 2048 --batch-size 12 --device cpu".split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process's peak of memory")
def test_the_predicted_peak_is_that_of_a_step() -> None:
    """Of a shape that the coefficients were not measured with."""
    program = Path(__file__).parents[2] / "benchmarks" / "plan_fit.py"
    point = [[96, 3, 16, 4, 2048], ["32-true", False]]
    command = [sys.executable, str(program), "--point", json.dumps(point)]
    measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    model = ModelConfig(d_model=96, n_layer=3, d_state=16)
    costs = read_costs("cpu")
    assert costs is not None
    predicted = costs.predict(Work(model, measured["parameters"], 4, 2048), Method("32-true", False))
    assert predicted is not None
    assert predicted.peak_bytes == pytest.approx(measured["bytes"], rel=0.15)


def predicted(work: Work, again: bool = False) -> Cost:
    costs = read_costs("cpu")
    assert costs is not None
    cost = costs.predict(work, Method("32-true", again))
    assert cost is not None
    return cost


def test_costs_grow_as_they_should() -> None:
    work = Work(ModelConfig(d_model=64, n_layer=4), 130_000, 16, 1024)
    whole = predicted(work)
    assert predicted(work._replace(parts=4)).peak_bytes < whole.peak_bytes / 3
    assert predicted(work._replace(parts=4)).seconds >= whole.seconds
    assert predicted(work, again=True).peak_bytes < whole.peak_bytes
    assert predicted(work._replace(windows=32)).seconds == pytest.approx(2 * whole.seconds, rel=0.1)


def test_the_longest_window_just_fits() -> None:
    costs, method = read_costs("cpu"), Method("32-true", False)
    assert costs is not None
    work = Work(ModelConfig(d_model=64, n_layer=4), 130_000, 16, 1024)
    longest = largest_window(costs, work, method, 500 * MIB)
    for length, fits in ((longest, True), (longest + 1, False)):
        (plan,) = (p for p in plans(costs, work._replace(windows=1, length=length), "32-true", 500 * MIB)
                   if not p.activation_checkpointing)  # fmt: skip
        assert plan.fits == fits
    assert largest_window(costs, work, method, 1000) == 0


def test_other_models_are_not_guessed_at(run_cli: RunCli) -> None:
    result = run_cli("plan", *MODEL, "--model.layers", "gru")
    assert result.code == 2
    assert result.err.startswith("model.layers=gru: no costs were measured on cpu in 32-true for such a model")
    result = run_cli("plan", *MODEL, "--on", "abacus")
    assert result.code == 2
    assert result.err.startswith("on=abacus: no costs are known for this device; choose --on from cpu")


@pytest.mark.parametrize(
    "words",
    [("--write", "best"), ("--steps=7",), ("-@", 2), ("-@2",), ("--optimizer.lr", 0.1)],
)
def test_what_has_no_say_is_refused_but_in_a_file(run_cli: RunCli, tmp_path: Path, words: tuple[object, ...]) -> None:
    result = run_cli("plan", *MODEL, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(": this command does not look at it; leave it out; only a file may name it\n")
    name, _, _ = result.err.partition(":")
    assert name.partition(".")[0] in plan.ONLY_IN_FILES
    file = tmp_path / "run.yaml"
    file.write_text("write: best\nsteps: 7\nworkers: 2\nreference: [genome.fa]\noptimizer:\n  lr: 0.1\n")
    assert run_cli("plan", *MODEL, "-c", file) == run_cli("plan", *MODEL)


def test_help_shows_what_has_a_say(run_cli: RunCli) -> None:
    shown = run_cli("plan", "--help").out
    assert "--batch-size BATCH_SIZE" in shown
    flags = set(re.findall(r"--[a-z][a-z-]*", shown))
    assert not flags & {f"--{name.replace('_', '-')}" for name in plan.ONLY_IN_FILES - {"masking", "optimizer"}}
    assert {field.name for field in dataclasses.fields(pretrain.Config)} >= plan.ONLY_IN_FILES


@pytest.mark.parametrize("memory", [0, -1.5])
def test_memory_that_is_none_is_refused(run_cli: RunCli, memory: float) -> None:
    result = run_cli("plan", *MODEL, "--memory-gib", memory)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"memory_gib={float(memory)}: it must be more than 0; raise it\n"


def test_plan_lists_every_way_and_names_the_fastest_that_fits(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("plan", *MODEL, "--memory-gib", 0.1)
    assert result.code == 0, result.err
    header, *rows = (line.split("\t") for line in result.out.splitlines())
    assert header == ["accumulate", "activation_checkpointing", "peak_GiB", "Mbp_per_s", "fits"]
    assert [(row[0], row[1]) for row in rows] == [(str(k), str(a)) for a in (False, True) for k in (1, 2, 3, 4, 6, 12)]
    fitting = [row for row in rows if row[4] == "True"]
    assert 0 < len(fitting) < len(rows)
    assert all(float(row[2]) <= 0.1 for row in fitting)
    best = max(fitting, key=lambda row: float(row[3]))
    named = re.search(r"fastest that fits: --accumulate (\d+)( --activation-checkpointing)?\n", result.err)
    assert named is not None
    assert best[3] == next(r for r in rows if r[0] == named[1] and r[1] == str(bool(named[2])))[3]
    output = tmp_path / "plan.json"
    assert run_cli("plan", *MODEL, "--memory-gib", 0.1, "-o", output).code == 0
    assert len(json.loads(output.read_text())["ways"]) == len(rows)
    assert run_cli("plan", *MODEL, "-o", output).code == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("1048576\n", MIB), ("max\n", None), (f"{1 << 60}\n", None), (None, None)]
)
def test_a_container_has_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int | None
) -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    if text is not None:
        limit.write_text(text)
    monkeypatch.setattr(memory_check, "CGROUP_LIMIT", limit)
    assert memory_check.free_bytes(torch.device("cpu")) == (expected or installed)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_does_not_fit_is_refused_with_what_does(
    precision: str, run_cli: RunCli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = "--model.d_model 32 --model.n_layer 2 --window 256 --batch-size 8 --steps 1 --device cpu".split()
    small += ["--precision", precision]
    given = ("pretrain", "-r", world.reference, "-o", tmp_path / "run", *small)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 6 * MIB)
    result = run_cli(*given)
    assert result.code == 2
    assert re.match(r"batch_size=8: a step of 8 windows of 256 bases would need 0\.0 GiB", result.err)
    assert not (tmp_path / "run").exists()
    remedy = re.search(r"; pass (--accumulate .*)\n", result.err)
    assert remedy is not None
    result = run_cli(*given, *remedy[1].split())
    assert result.code == 0, result.err
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 1 * MIB)
    result = run_cli(*given, "--force")
    assert result.code == 2
    assert "--window" in result.err or "take a smaller model" in result.err
