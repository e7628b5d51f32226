"""A pretraining run from FASTA against the same step on one batch that stays on the device; and its memory as planned.

The run is `genomamba pretrain` itself: reader, loader processes, strands, checks of the loss, logs, progress. Its speed
is that of its own metrics.csv, after some steps to warm up. Beside it, the same task, optimizer, precision and CUDA
graphs on a batch in memory, with nothing that waits for the device; and what `genomamba plan` says of the same options.

    python benchmarks/pretrain_speed.py --out benchmarks/results/pretrain_speed_h200.json
    python benchmarks/pretrain_speed.py --cpu    # small: shows that it works, and what the loop itself costs

Takes less than a minute on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from made_with import commit

from genomamba.errors import ConfigError
from genomamba.model.config import ModelConfig
from genomamba.pipelines import plan, pretrain
from genomamba.pipelines.pretrain_ranks import prepare
from genomamba.tasks.device import resolve_device
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.time_budget import whole_step

GIB = 1 << 30


class Size(NamedTuple):
    windows: int
    length: int
    steps: int  # timed; each way has a few more to warm up


GPU_SIZES = [Size(1, 1 << 20, 25), Size(128, 1024, 200)]
CPU_SIZES = [Size(1, 4096, 40), Size(8, 256, 40)]
WARM = 15  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("-r", "--reference", help="FASTA; one of random bases is made when not given")
    parser.add_argument("--rows", type=int, nargs="+", help="only these sizes, from 0")
    parser.add_argument("--windows", type=int, help="instead of the sizes' own")
    parser.add_argument("--steps", type=int, help="that are timed, instead of the sizes' own")
    parser.add_argument("--d-model", type=int)
    parser.add_argument("--n-layer", type=int)
    parser.add_argument("--workers", type=int, help="loader processes")
    parser.add_argument("--no-cuda-graph", action="store_true")
    parser.add_argument("--waits", action="store_true", help="only show the lines on which a run waits for the GPU")
    parser.add_argument("--cpu", action="store_true", help="small models and windows, on the CPU")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    sizes = CPU_SIZES if options.cpu else GPU_SIZES
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = options.reference or random_genome(folder / "genome.fa", 1 if options.cpu else 32)
        for number in options.rows or range(len(sizes)):
            size = sizes[number]._replace(
                **{k: v for k in ("windows", "steps") if (v := getattr(options, k)) is not None}
            )
            config = configuration(size, reference, folder / f"run{number}", options)
            if options.waits:
                torch.cuda.set_sync_debug_mode("warn")
                pretrain.run(config)
                continue
            rows.append(measure(size, config))
            print(json.dumps(rows[-1]), flush=True)
    if options.out and rows:
        found = {"machine": describe(options), "sizes": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def random_genome(path: Path, megabases: int) -> str:
    bases = np.frombuffer(b"ACGT", dtype=np.uint8)[np.random.default_rng(0).integers(0, 4, (megabases * 12_500, 80))]
    lines = np.concatenate((bases, np.full((len(bases), 1), ord("\n"), dtype=np.uint8)), axis=1)
    path.write_bytes(b">chr\n" + lines.tobytes())
    return str(path)


def configuration(size: Size, reference: str, folder: Path, options: argparse.Namespace) -> pretrain.Config:
    width, layers = (16, 2) if options.cpu else (256, 8)
    steps = WARM + size.steps
    return pretrain.Config(
        reference=[reference],
        output=str(folder),
        window=size.length,
        batch_size=size.windows,
        steps=steps,
        validate_every=steps,
        workers=options.workers if options.workers is not None else (1 if options.cpu else 4),
        device="cpu" if options.cpu else "gpu",
        precision="32-true" if options.cpu else "bf16-mixed",
        cuda_graph=not options.no_cuda_graph,
        model=ModelConfig(d_model=options.d_model or width, n_layer=options.n_layer or layers),
    )


def measure(size: Size, config: pretrain.Config) -> dict[str, Any]:
    row: dict[str, Any] = {
        **size._asdict(),
        "d_model": config.model.d_model,
        "n_layer": config.model.n_layer,
        "precision": config.precision,
        "cuda_graph": config.cuda_graph,
        "workers": config.workers,
    }
    bases = size.windows * size.length
    planned = plan_of(config)
    for name, way in (("run", run), ("fixed_batch", on_one_batch)):
        gc.collect()  # what the one before held, on the device too
        if config.device == "gpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = way(config)
        row[name] = {"step_ms": round(1e3 * seconds, 3), "Mbp_per_s": round(bases / seconds / 1e6, 4)}
        if config.device == "gpu":
            row[name]["peak_GiB"] = round(torch.cuda.max_memory_allocated() / GIB, 3)
            row[name]["reserved_GiB"] = round(torch.cuda.max_memory_reserved() / GIB, 3)
    row["run_of_fixed_batch"] = round(row["fixed_batch"]["step_ms"] / row["run"]["step_ms"], 4)
    row["plan"] = planned
    if planned is not None and config.device == "gpu":
        row["plan_of_peak"] = round(planned["peak_GiB"] / row["run"]["peak_GiB"], 4)
    return row


def run(config: pretrain.Config) -> float:
    """Seconds per step of `genomamba pretrain`."""
    pretrain.run(config)
    with (Path(config.output) / "metrics.csv").open(newline="") as stream:
        logged = [row for row in csv.DictReader(stream) if row["train_seconds"]]
    steps, seconds = zip(*((int(row["step"]), float(row["train_seconds"])) for row in logged), strict=True)
    first = next(place for place, step in enumerate(steps) if step + 1 >= WARM)
    return (seconds[-1] - seconds[first]) / (steps[-1] - steps[first])


def on_one_batch(config: pretrain.Config) -> float:
    """Seconds per step on the run's first batch, which is on the device."""
    assert config.steps is not None
    device = resolve_device(config.device)
    with contextlib.redirect_stderr(io.StringIO()):
        _, _, windows, task = prepare(config)
    task = task.to(device).train()
    task.graph_short_steps(device)
    optimizer, schedule = make_optimizer(task.model, task.optimizer_config, config.steps)
    batch = windows.first_batch(config.window).to(device)
    began = 0.0
    for step in range(config.steps):
        if step == WARM:
            wait(device)
            began = time.perf_counter()
        whole_step(task, optimizer, batch, device, config.precision)
        schedule.step()
    wait(device)
    return (time.perf_counter() - began) / (config.steps - WARM)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def plan_of(config: pretrain.Config) -> dict[str, float] | None:
    """What `genomamba plan` says; None where this device's costs are not known."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "plan.json"
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                plan.run(plan.Config(**vars(config) | {"output": str(out)}))
        except ConfigError as error:
            print(error, file=sys.stderr)
            return None
        ways = json.loads(out.read_text())["ways"]
    way = next(way for way in ways if way["accumulate"] == 1 and not way["activation_checkpointing"])
    return {name: way[name] for name in ("peak_GiB", "Mbp_per_s")}


def describe(options: argparse.Namespace) -> dict[str, Any]:
    device = "cpu" if options.cpu else torch.cuda.get_device_name()
    return {
        "device": device,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": options.commit or commit(),
    }


if __name__ == "__main__":
    main()
