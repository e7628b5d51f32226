"""Measure what a pretraining step costs on this device and fit the coefficients behind `genomamba plan`.

A handful of models and batches, each trained for a few steps as `genomamba pretrain` does it; peak memory and the
time of a step. On a CPU each point runs in a process of its own, because its memory can only be told from
that of the process. Takes about a minute on a GPU, and some on a CPU.

    python benchmarks/plan_fit.py                     # writes genomamba/tasks/device_costs/<device>.json
    python benchmarks/plan_fit.py --out costs.json
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from genomamba.data.datasets import Batch
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.costs import FOLDER, Method, Work, memory_terms, slug, time_terms
from genomamba.tasks.memory_check import device_name
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.time_budget import whole_step
from genomamba.tasks.trainer import be_deterministic

# d_model, layers, states, windows, length
GPU_POINTS = [
    (128, 2, 16, 128, 1024),
    (128, 4, 16, 512, 1024),
    (256, 2, 16, 256, 1024),
    (256, 8, 16, 256, 1024),
    (256, 4, 32, 128, 1024),
    (512, 2, 16, 128, 1024),
    (128, 4, 16, 1, 131072),
    (256, 8, 16, 2, 131072),
    (256, 4, 16, 1, 524288),
    (128, 4, 16, 1, 1048576),
    (64, 2, 16, 8, 128),
]
CPU_POINTS = [
    (32, 2, 16, 4, 512),
    (64, 2, 16, 8, 512),
    (64, 4, 16, 8, 1024),
    (128, 2, 16, 8, 1024),
    (128, 4, 16, 2, 4096),
    (64, 2, 32, 8, 1024),
    (64, 3, 16, 1, 16384),
    (256, 2, 16, 2, 2048),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the file to write; by default where the package looks for it")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU even where there is a GPU")
    parser.add_argument("--point", help="measure one point and print it; what the program calls itself with")
    options = parser.parse_args()
    if options.point:
        point, method = json.loads(options.point)
        print(json.dumps(measure(point, Method(*method), torch.device("cpu"))))
        return
    on_gpu = torch.cuda.is_available() and not options.cpu
    device = torch.device("cuda" if on_gpu else "cpu")
    precision = "bf16-mixed" if on_gpu else "32-true"
    points = GPU_POINTS if on_gpu else CPU_POINTS
    methods = []
    for again in (False, True):
        method = Method(precision, again)
        rows = []
        for point in points:
            row = measure(point, method, device) if on_gpu else measure_apart(point, method)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
        methods.append(method._asdict() | fitted([row for row in rows if "seconds" in row]))
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else physical_memory()
    found = {
        "device": device_name(device),
        "memory_bytes": memory,
        "torch": torch.__version__,
        "threads": None if on_gpu else torch.get_num_threads(),
        "methods": methods,
    }
    out = options.out or FOLDER / f"{slug(device_name(device))}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for method in methods:
        errors = [abs(p["predicted_bytes"] / p["bytes"] - 1) for p in method["points"]]
        slow = [abs(p["predicted_seconds"] / p["seconds"] - 1) for p in method["points"]]
        print(f"checkpointing {method['activation_checkpointing']}: worst error of memory {max(errors):.1%}, ", end="")
        print(f"of time {max(slow):.1%}")
    print(out)


def physical_memory() -> int:
    from genomamba.tasks.memory_check import free_bytes

    return free_bytes(torch.device("cpu"))


def measure_apart(point: tuple[int, ...], method: Method) -> dict[str, Any]:
    command = [sys.executable, __file__, "--point", json.dumps([point, method])]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def measure(point: tuple[int, ...], method: Method, device: torch.device) -> dict[str, Any]:
    """Peak bytes and median seconds of a step; without them where memory ran out."""
    width, layers, states, windows, length = point
    row: dict[str, Any] = {"point": list(point)}
    torch.manual_seed(0)
    be_deterministic(device.type)
    model = CausalLM(ModelConfig(d_model=width, n_layer=layers, d_state=states))
    model.backbone.activation_checkpointing = method.activation_checkpointing
    task = PretrainTask(model, OptimizerConfig(), 100, batch_size=windows, window=length)
    ids = torch.randint(alphabet.A, alphabet.T + 1, (windows, length), dtype=torch.uint8)
    batch = Batch(ids, torch.ones(windows, length), [])
    if device.type == "cpu":  # compile and start threads before memory is looked at
        small = PretrainTask(CausalLM(model.config), OptimizerConfig(), 100, batch_size=1, window=32)
        small.model.backbone.activation_checkpointing = method.activation_checkpointing
        whole_step(small, make_optimizer(small.model, small.optimizer_config, 9)[0],
                   Batch(ids[:1, :32], torch.ones(1, ids[:1, :32].shape[1]), []), device, method.precision)  # fmt: skip
        row["parameters"] = sum(p.numel() for p in model.parameters())
        held = 4 * row["parameters"]  # its weights stand already
        reset_peak()
        before = status("VmRSS") - held
    try:
        task = task.to(device).train()
        optimizer, _ = make_optimizer(task.model, task.optimizer_config, task.steps)
        batch = batch.to(device)
        row["parameters"] = sum(p.numel() for p in task.parameters())
        took = []
        for _ in range(4 if device.type == "cpu" else 5):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            whole_step(task, optimizer, batch, device, method.precision).item()
            took.append(time.perf_counter() - began)
        # Whatever else runs on a CPU can only add to a step.
        row["seconds"] = min(took[1:]) if device.type == "cpu" else statistics.median(took[2:])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            whole_step(task, optimizer, batch, device, method.precision).item()
            row["bytes"] = torch.cuda.max_memory_allocated()
        else:
            row["bytes"] = status("VmHWM") - before
    except torch.OutOfMemoryError:
        row["out_of_memory"] = True
    del task, batch
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def reset_peak() -> None:
    """Linux keeps a high-water mark of a process's memory that can be set back."""
    Path("/proc/self/clear_refs").write_text("5")


def fitted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Coefficients of at least 0 with the least sum of squared relative errors."""
    works = []
    for row in rows:
        width, layers, states, windows, length = row["point"]
        works.append(
            Work(ModelConfig(d_model=width, n_layer=layers, d_state=states), row["parameters"], windows, length)
        )
    memory = least_squares([memory_terms(work) for work in works], [row["bytes"] for row in rows])
    terms = [{**time_terms(work)[0], **time_terms(work)[1]} for work in works]
    seconds = least_squares(terms, [row["seconds"] for row in rows])
    points = [
        row
        | {
            "predicted_bytes": sum(memory[name] * value for name, value in memory_terms(work).items()),
            "predicted_seconds": sum(seconds[name] * value for name, value in term.items()),
        }
        for row, work, term in zip(rows, works, terms, strict=True)
    ]
    return {"memory": memory, "seconds": seconds, "points": points}


def least_squares(terms: list[dict[str, float]], values: list[float]) -> dict[str, float]:
    names = list(terms[0])
    matrix = np.array([[term[name] for name in names] for term in terms]) / np.array(values)[:, None]
    scale = np.abs(matrix).max(axis=0)
    found, _ = nnls(matrix / scale, np.ones(len(values)))
    return dict(zip(names, (found / scale).tolist(), strict=True))


if __name__ == "__main__":
    main()
