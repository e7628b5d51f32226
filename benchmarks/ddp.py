"""Two GPUs against one: throughput of pretraining with DDP and FSDP2, and that both go on from a checkpoint.

Each is a run of `genomamba pretrain` on random sequence, with as many windows per device. What a step takes is the
median of the intervals between the rows of its metrics.csv, which are some steps apart; the loader and the exchange of
gradients are included, validation and the first steps are not. Then a run with the same options is stopped by SIGTERM
after some steps, resumed, and compared with the timed one step by step; DDP's and FSDP2's do so at the same time.

    python benchmarks/ddp.py --out benchmarks/results/ddp.json
    python benchmarks/ddp.py --ways one fsdp

Needs the package's own dependencies and two GPUs; with --cpu it shows on two processes that it works. Results are
written after each part, with the seconds that it took.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from made_with import commit

WAYS = {
    "one": ["--devices", "1"],
    "ddp": ["--devices", "2", "--strategy", "ddp"],
    "fsdp": ["--devices", "2", "--strategy", "fsdp"],
}
WARM = 15  # steps before the clock counts
STOP_AFTER = 4  # steps, or soon after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="only these")
    parser.add_argument("--steps", type=int, default=150, help="that are timed")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=256, help="windows per device and step")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--n-layer", type=int, default=8)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.steps < 10:
        parser.error("--steps must be at least 10: times are those of five steps each")
    if not options.cpu and torch.cuda.device_count() < 2:
        print("fewer than two NVIDIA GPUs here: nothing measured")
        return
    found: dict[str, Any] = {
        "device": "cpu" if options.cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "commit": commit(),
        **{key: value for key, value in vars(options).items() if key not in ("out", "cpu", "ways")},
    }

    def keep(way: str, part: dict[str, Any]) -> None:
        found[way] = found.get(way, {}) | part
        print(way, part, flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = random.Random(0).choices("ACGT", k=5_000_000)
        (folder / "genome.fa").write_text(">chr\n" + "".join(bases) + "\n")
        for way in options.ways:
            speed = throughput(folder, way, options)
            keep(way, speed)
            if way != "one" and "one" in found:
                keep(way, {"times_one": speed["Mbp_per_s"] / found["one"]["Mbp_per_s"]})
        several = [way for way in options.ways if way != "one"]
        with ThreadPoolExecutor() as pool:
            parts = {pool.submit(resumed, folder, way, options): way for way in several}
            for part in as_completed(parts):
                keep(parts[part], part.result())


def pretrain(folder: Path, run: Path, way: str, options: argparse.Namespace, *more: object) -> subprocess.Popen:
    devices = int(WAYS[way][1])
    words: list[object] = [
        *("-r", folder / "genome.fa", "-o", run, "--step-log", *WAYS[way]),
        *(
            "--window",
            options.window,
            "--batch-size",
            options.batch_size * devices,
            "--workers",
            0 if options.cpu else 4,
        ),
        *("--model.d_model", options.d_model, "--model.n_layer", options.n_layer),
        *(("--device", "cpu") if options.cpu else ("--device", "gpu", "--precision", "bf16-mixed")),
    ]
    words += ["--steps", WARM + options.steps, "--validate-every", WARM + options.steps]
    command = [sys.executable, "-m", "genomamba", "pretrain", *words, *more]
    with log_of(run).open("a") as log:
        return subprocess.Popen([str(word) for word in command], stderr=log)


def log_of(run: Path) -> Path:
    return run.with_suffix(".log")


def finish(run: Path, process: subprocess.Popen, code: int = 0) -> None:
    if process.wait() != code:
        raise SystemExit(log_of(run).read_text())


def steps_done(run: Path) -> int:
    path = run / "steps.tsv"
    return path.read_text().count("\n") if path.exists() else 0


def throughput(folder: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Mbp/s of all devices together, and milliseconds per step: the median, and the middle half's ends."""
    run, began = folder / way, time.perf_counter()
    finish(run, pretrain(folder, run, way, options))
    with (run / "metrics.csv").open(newline="") as stream:
        rows = [(int(row["step"]) + 1, float(row["train_seconds"])) for row in csv.DictReader(stream) if row["lr"]]
    timed = [row for row in rows if row[0] >= WARM]
    times = [1e3 * (after - before) / (last - first) for (first, before), (last, after) in itertools.pairwise(timed)]
    lower, median, upper = statistics.quantiles(times, n=4)
    return {
        "Mbp_per_s": options.batch_size * options.window * int(WAYS[way][1]) / median / 1e3,
        "step_ms": median,
        "step_ms_middle_half": [lower, upper],
        "seconds": time.perf_counter() - began,
    }


def resumed(folder: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Largest difference of a step's loss between a run that was stopped and resumed and the timed one."""
    whole, cut, began = folder / way, folder / f"{way}_cut", time.perf_counter()
    process = pretrain(folder, cut, way, options)
    while steps_done(cut) < STOP_AFTER and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGTERM)
    finish(cut, process, 128 + signal.SIGTERM)
    at = steps_done(cut)
    finish(cut, pretrain(folder, cut, way, options, "--resume"))
    ours, theirs = (losses(run) for run in (cut, whole))
    return {
        "stopped_after": at,
        "compared_steps": len(ours),
        "same_bits": ours == theirs,
        "largest_difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        "resume_seconds": time.perf_counter() - began,
    }


def losses(run: Path) -> list[float]:
    return [float.fromhex(line.split("\t")[1]) for line in (run / "steps.tsv").read_text().splitlines()]


if __name__ == "__main__":
    main()
