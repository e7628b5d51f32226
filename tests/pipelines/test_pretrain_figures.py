"""What a run reports of its validation, and a run whose windows grow."""

from __future__ import annotations

import importlib.util
import math
import re
import signal
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from world import RunCli, write_reference

from genomamba.tasks.pretrain import PretrainTask

SMALL = (
    "--model.d_model 8 --model.n_layer 2 --model.d_state 2 --window 64 --batch-size 4 --steps 6 --validate-every 3"
    " --device cpu --valid b:1-250 c --softmask-weight 0.25"
).split()
Table = dict[tuple[str, str, str], tuple[int, float]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(4)
    bases = random.choice(list("ACGTACGTacgtN"), 3000)
    contigs = {"a": bases[:2000], "b": bases[2000:2700], "c": bases[2700:]}
    path = tmp_path_factory.mktemp("figures") / "genome.fa"
    return write_reference(path, {name: "".join(part) for name, part in contigs.items()})


def read_table(folder: Path) -> Table:
    header, *rows = (line.split("\t") for line in (folder / "validation.tsv").read_text().splitlines())
    assert header == ["step", "contig", "stratum", "bases", "bits_per_base"]
    return {(row[0], row[1], row[2]): (int(row[3]), float(row[4])) for row in rows}


def test_validation_tells_contigs_and_strata_apart(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_cli("pretrain", "-r", reference, "-o", run, *SMALL).code == 0
    table = read_table(run)
    assert {key[0] for key in table} == {"3", "6"}
    assert {key[1] for key in table} == {"b", "c", "*"}
    for step, contig in {key[:2] for key in table}:
        (n_unique, unique), (n_masked, masked), (n, bits) = (
            table[step, contig, stratum] for stratum in ("unique", "soft_masked", "all")
        )
        assert n == n_unique + n_masked
        assert bits == pytest.approx((n_unique * unique + n_masked * masked) / n, abs=2e-6)
    for stratum in ("unique", "soft_masked", "all"):
        parts = [table["6", contig, stratum] for contig in "bc"]
        total = sum(bases for bases, _ in parts)
        assert table["6", "*", stratum][0] == total
        assert table["6", "*", stratum][1] == pytest.approx(sum(n * x for n, x in parts) / total, abs=2e-6)
    # The weighted figure of metrics.csv, and what the finished model gets elsewhere.
    (n_unique, unique), (n_masked, masked) = table["6", "*", "unique"], table["6", "*", "soft_masked"]
    weighted = (n_unique * unique + 0.25 * n_masked * masked) / (n_unique + 0.25 * n_masked)
    header, *rows = ([*line.split(",")] for line in (run / "metrics.csv").read_text().splitlines())
    last = dict(zip(header, rows[-1], strict=True))
    assert float(last["valid_bits_per_base"]) == pytest.approx(weighted, rel=1e-5)
    assert float(last["valid_soft_masked_bits_per_base"]) == pytest.approx(masked, rel=1e-5)
    bed = tmp_path / "valid.bed"
    bed.write_text("b\t0\t250\nc\t0\t300\n")
    result = run_cli("evaluate", "regions", "-r", reference, "-b", bed, "-m", run)
    assert result.code == 0, result.err
    measured = {cells[0]: cells for cells in (line.split("\t") for line in result.out.splitlines()[1:])}
    for contig in "bc":
        bases, bits = table["6", contig, "all"]
        assert measured[contig][4] == str(bases)
        assert float(measured[contig][5]) == pytest.approx(bits, abs=1e-4)


def test_the_line_in_a_log_is_whole(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, "--steps", 12)
    assert result.code == 0, result.err
    (line,) = (line for line in result.err.splitlines() if line.startswith("pretraining "))
    figures = r"\d+/\d+ took \d:\d\d:\d\d +[\d.]+ Mbp/s train bits \d+\.\d\d valid bits \d+\.\d\d"
    assert re.fullmatch(rf"pretraining \S+ +{figures} *", line), line
    assert len(line) > 80


def test_a_masked_model_has_the_same_table(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    masked = ("--objective", "masked", "--model.bidirectional", "true")
    assert run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, *masked).code == 0
    bases, bits = read_table(tmp_path / "run")["6", "*", "all"]
    assert 20 < bases < 200  # those that were hidden
    assert math.isfinite(bits)


def test_windows_grow_and_a_stopped_run_goes_on(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = ("--first-window", 16, "--short-share", 0.7, "--step-log", "--model.dropout", 0.1)
    assert run_cli("pretrain", "-r", reference, "-o", tmp_path / "whole", *SMALL, *growing).code == 0
    lengths = defaultdict(set)
    for line in (tmp_path / "whole" / "steps.tsv").read_text().splitlines():
        step, _, windows = line.split("\t")
        for window in windows.split():
            start, _, end = window.partition(":")[2].partition("(")[0].replace(",", "").partition("-")
            lengths[int(step)].add(int(end) - int(start))
        assert len(windows.split()) * max(lengths[int(step)]) in (4 * 64, 4 * 64 - len(windows.split()))
    assert [len(sizes) for sizes in lengths.values()] == [1] * 6
    assert [max(sizes) > 40 for sizes in lengths.values()] == [False] * 5 + [True]
    step = PretrainTask.training_step

    def stopped(task: PretrainTask, *args: object) -> object:
        if task.global_step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(task, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", stopped)
        assert run_cli("pretrain", "-r", reference, "-o", tmp_path / "cut", *SMALL, *growing).code == 143
    assert run_cli("pretrain", "-r", reference, "-o", tmp_path / "cut", *SMALL, *growing, "--resume").code == 0
    for name in ("steps.tsv", "model.safetensors", "validation.tsv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--first-window 24", "first_window=24: doubled again and again"),
        ("--first-window 1", "first_window=1: a window has at least 2 bases"),
        ("--first-window 16 --short-share 1", "short_share=1.0: it must lie in [0, 1)"),
        ("--short-share 0.5", "short_share=0.5: it counts only with --first-window; give that too, or leave this out"),
    ],
)
def test_a_curriculum_is_checked(run_cli: RunCli, reference: Path, tmp_path: Path, words: str, message: str) -> None:
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, *words.split())
    assert result.code == 2
    assert result.err.startswith(message)
    assert not (tmp_path / "run").exists()


def test_figures_go_to_tensorboard(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    assert run_cli("pretrain", "-r", reference, "-o", run, *SMALL, "--also-log", "tensorboard").code == 0
    events = event_file.EventAccumulator(str(run / "tensorboard")).Reload()
    header, *rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    column = header.index("valid_bits_per_base")
    ours = [float(row[column]) for row in rows if row[column]]
    assert [event.value for event in events.Scalars("valid_bits_per_base")] == pytest.approx(ours, rel=1e-6)


def test_a_logger_that_is_missing_is_named(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, "--also-log", "wandb")
    assert result.code == 2
    assert result.err == "also_log=wandb: it is not installed; pip install -e '.[wandb]'\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rate", "rises"), [(1.0, True), (1e-3, False)])
def test_a_validation_that_rose_again_is_told(
    run_cli: RunCli, reference: Path, tmp_path: Path, rate: float, rises: bool
) -> None:
    words = [*SMALL, "--softmask-weight", 1, "--optimizer.lr", rate, "--optimizer.final", 1]
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *words)
    assert result.code == 0, result.err
    figures = {step: bits for (step, contig, stratum), (_, bits) in read_table(tmp_path / "run").items()
               if (contig, stratum) == ("*", "all")}  # fmt: skip
    assert (figures["6"] > figures["3"]) == rises
    told = f"validation was at its lowest, {figures['3']:.4f}, after 3 steps; the model is that of the last step"
    assert (told in result.err) == rises


@pytest.mark.parametrize(("size", "told"), [(100_000, True), (60, False)])
def test_blocks_that_hold_out_another_share_are_told(
    run_cli: RunCli, reference: Path, tmp_path: Path, size: int, told: bool
) -> None:
    words = [word for word in SMALL if word not in ("--valid", "b:1-250", "c")]
    blocks = ("--valid-blocks", 0.25, "--block-size", size)
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *words, *blocks)
    assert result.code == 0, result.err
    held_out = sum(int(end) - int(start) for _, start, end in (
        line.split("\t")[:3] for line in (tmp_path / "run" / "valid.bed").read_text().splitlines()
    ))  # fmt: skip
    assert (f"blocks of {size:,} bases hold out " in result.err) == told
    assert (abs(held_out / 3000 - 0.25) > 0.05) == told
