"""Two GPUs against one: throughput of pretraining with DDP and FSDP2, and that both go on from a checkpoint.

Each is a run of `genomamba pretrain` on random sequence, with as many windows per device; the time between two lines
of its step log is what counts, the loader and the exchange of gradients included. Then a run that is stopped by
SIGTERM and resumed is compared with one that is not, step by step.

    python benchmarks/ddp.py --out benchmarks/results/ddp.json

Needs the package's own dependencies and two GPUs; with --cpu it shows on two processes that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

WAYS = {
    "one": ["--devices", "1"],
    "ddp": ["--devices", "2", "--strategy", "ddp"],
    "fsdp": ["--devices", "2", "--strategy", "fsdp"],
}
WARM = 15  # steps before the clock starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--steps", type=int, default=60, help="that are timed")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=256, help="windows per device and step")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--n-layer", type=int, default=8)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if not options.cpu and torch.cuda.device_count() < 2:
        print("fewer than two NVIDIA GPUs here: nothing measured")
        return
    found: dict[str, Any] = {
        "device": "cpu" if options.cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "commit": commit(),
        **{key: value for key, value in vars(options).items() if key not in ("out", "cpu")},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = random.Random(0).choices("ACGT", k=5_000_000)
        (folder / "genome.fa").write_text(">chr\n" + "".join(bases) + "\n")
        for way in WAYS:
            found[way] = {"Mbp_per_s": throughput(folder, way, options)}
            print(way, found[way], flush=True)
        for way in ("ddp", "fsdp"):
            found[way]["times_one"] = found[way]["Mbp_per_s"] / found["one"]["Mbp_per_s"]
            found[way] |= resumed(folder, way, options)
            print(way, found[way], flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def pretrain(folder: Path, run: Path, way: str, options: argparse.Namespace, *more: object) -> subprocess.Popen:
    devices = int(WAYS[way][1])
    words = [
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
    command = [sys.executable, "-m", "genomamba", "pretrain", *words, *more]
    log = (folder / "log").open("a")
    return subprocess.Popen([str(word) for word in command], stderr=log)


def finish(folder: Path, process: subprocess.Popen, code: int = 0) -> None:
    if process.wait() != code:
        raise SystemExit((folder / "log").read_text())


def steps_done(run: Path) -> int:
    path = run / "steps.tsv"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(run: Path, steps: int, process: subprocess.Popen) -> float:
    while steps_done(run) < steps and process.poll() is None:
        time.sleep(0.002)
    return time.perf_counter()


def throughput(folder: Path, way: str, options: argparse.Namespace) -> float:
    """Mbp/s of all devices together."""
    run, steps = folder / way, WARM + options.steps
    process = pretrain(folder, run, way, options, "--steps", steps + 2, "--validate-every", steps + 2)
    began = wait_for(run, WARM, process)
    ended = wait_for(run, steps, process)
    finish(folder, process)
    return options.steps * options.batch_size * options.window * int(WAYS[way][1]) / (ended - began) / 1e6


def resumed(folder: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Largest difference of a step's loss between a run that was stopped and resumed and one that was not."""
    more = ("--steps", 12, "--validate-every", 6)
    whole, cut = folder / f"{way}_whole", folder / f"{way}_cut"
    finish(folder, pretrain(folder, whole, way, options, *more))
    process = pretrain(folder, cut, way, options, *more)
    wait_for(cut, 4, process)
    os.kill(process.pid, signal.SIGTERM)
    finish(folder, process, 128 + signal.SIGTERM)
    at = steps_done(cut)
    finish(folder, pretrain(folder, cut, way, options, *more, "--resume"))
    ours, theirs = (losses(run) for run in (cut, whole))
    return {
        "stopped_after": at,
        "same_bits": ours == theirs,
        "largest_difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
    }


def losses(run: Path) -> list[float]:
    return [float.fromhex(line.split("\t")[1]) for line in (run / "steps.tsv").read_text().splitlines()]


def commit() -> str | None:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


if __name__ == "__main__":
    main()
