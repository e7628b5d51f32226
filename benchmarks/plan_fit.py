"""Measure what a pretraining step costs on this device and fit the coefficients behind `genomamba plan`.

A handful of models and batches, each trained for a few steps as `genomamba pretrain` does it, without CUDA graphs;
peak memory and the time of a step. On a CPU each point runs in a process of its own, because its memory can only be
told from that of the process. Takes a minute or two on a GPU, most of it to compile, and some on a CPU. What is
measured goes to stderr line by line; the fit can be made again from that.

    python benchmarks/plan_fit.py 2> rows.jsonl       # writes genomamba/tasks/device_costs/<device>.json
    python benchmarks/plan_fit.py --rows rows.jsonl   # the same from rows that were measured before
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
from collections.abc import Iterator
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
from genomamba.tasks.cost_terms import KNOWN_BYTES, Gpu, Method, Terms, Work, memory_terms, time_terms
from genomamba.tasks.costs import FOLDER, DeviceCosts, slug
from genomamba.tasks.memory_check import device_name
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.time_budget import whole_step
from genomamba.tasks.trainer import be_deterministic

# d_model, layers, states, windows, length. On a GPU each kind of shape has kernels of its own to compile: few kinds.
GPU_POINTS = [
    (256, 2, 16, 256, 1024),
    (256, 8, 16, 256, 1024),
    (128, 4, 16, 512, 1024),
    (512, 2, 16, 128, 1024),
    (256, 8, 16, 2, 131072),
    (128, 4, 16, 1, 1048576),
    (256, 2, 16, 2, 1048576),  # in slabs
    (64, 2, 16, 8, 128),
    (64, 6, 16, 8, 128),
    (256, 4, 32, 128, 1024),
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
# A step decides nothing about the device, but about the host that drives it, where it takes less than this many times
# what the quickest takes for each layer.
HOST_DECIDES = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the file to write; by default where the package looks for it")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU even where there is a GPU")
    parser.add_argument("--rows", type=Path, help="fit to what an earlier run has printed; measure nothing")
    parser.add_argument("--point", help="measure one point and print it; what the program calls itself with")
    options = parser.parse_args()
    if options.point:
        point, method = json.loads(options.point)
        print(json.dumps(measure(point, Method(*method), torch.device("cpu"))))
        return
    lines = options.rows.read_text().splitlines() if options.rows else measured(options.cpu)
    facts, *rows = (json.loads(line) for line in lines if line.startswith("{"))
    gpu = None if facts["multiprocessors"] is None else Gpu(facts["memory_bytes"], facts["multiprocessors"])
    methods = fitted([row for row in rows if "seconds" in row], gpu)
    out = options.out or FOLDER / f"{slug(facts['device'])}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(facts | {"methods": methods}, indent=1, ensure_ascii=False) + "\n")
    for one in methods:
        errors = [abs(p["predicted_bytes"] / p["bytes"] - 1) for p in one["points"]]
        slow = [abs(p["predicted_seconds"] / p["seconds"] - 1) for p in one["points"]]
        print(f"checkpointing {one['activation_checkpointing']}: {len(errors)} points, ", end="")
        print(f"worst error of memory {max(errors):.1%}, of time {max(slow):.1%}")
    print(out)


def measured(on_cpu: bool) -> Iterator[str]:
    """JSON: facts about the device, and then each point with each method."""
    on_gpu = torch.cuda.is_available() and not on_cpu
    device = torch.device("cuda" if on_gpu else "cpu")
    found = torch.cuda.get_device_properties(0) if on_gpu else None
    facts = {
        "device": device_name(device),
        "memory_bytes": physical_memory() if found is None else found.total_memory,
        "multiprocessors": None if found is None else found.multi_processor_count,
        "torch": torch.__version__,
        "threads": None if on_gpu else torch.get_num_threads(),
    }
    yield printed(facts)
    for point in GPU_POINTS if on_gpu else CPU_POINTS:
        for again in (False, True):  # one after the other: whatever ends a run early leaves points of both
            method = Method("bf16-mixed" if on_gpu else "32-true", again)
            yield printed(measure(point, method, device) if on_gpu else measure_apart(point, method))


def printed(row: dict[str, Any]) -> str:
    line = json.dumps(row)
    print(line, file=sys.stderr, flush=True)
    return line


def physical_memory() -> int:
    from genomamba.tasks.memory_check import free_bytes

    return free_bytes(torch.device("cpu"))


def measure_apart(point: tuple[int, ...], method: Method) -> dict[str, Any]:
    command = [sys.executable, __file__, "--point", json.dumps([point, method])]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def measure(point: tuple[int, ...], method: Method, device: torch.device) -> dict[str, Any]:
    """Peak bytes and median seconds of a step; without them where memory ran out."""
    width, layers, states, windows, length = point
    row: dict[str, Any] = method._asdict() | {"point": list(point)}
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


def fitted(rows: list[dict[str, Any]], gpu: Gpu | None) -> list[dict[str, Any]]:
    """Each method's coefficients. A GPU's terms know what checkpointing changes: there the methods share them."""
    methods = sorted({method_of(row) for row in rows})
    shared = coefficients(rows, gpu) if gpu else None
    found = []
    for method in methods:
        own = [row for row in rows if method_of(row) == method]
        memory, seconds = shared or coefficients(own, gpu)
        costs = DeviceCosts(
            "", gpu.memory_bytes if gpu else 0, gpu and gpu.multiprocessors, {method: (memory, seconds)}
        )
        points = []
        for row in own:
            cost = costs.predict(work_of(row), method, replayed=False)
            assert cost is not None
            kept = {name: value for name, value in row.items() if name not in Method._fields}
            points.append(kept | {"predicted_bytes": cost.peak_bytes, "predicted_seconds": cost.seconds})
        found.append(method._asdict() | {"memory": memory, "seconds": seconds, "points": points})
    return found


def coefficients(rows: list[dict[str, Any]], gpu: Gpu | None) -> tuple[Terms, Terms]:
    """Of bytes and seconds."""
    memory = least_squares(
        [memory_terms(work_of(row), method_of(row), gpu)[0] for row in rows],  # where the peak of most shapes is
        [row["bytes"] for row in rows],
        KNOWN_BYTES if gpu else {},
    )
    terms = [time_terms(work_of(row), method_of(row), gpu) for row in rows]
    taken = [row["seconds"] for row in rows]
    if gpu is None:
        return memory, least_squares([one.once | one.each for one in terms], taken, {})
    # Of the device's time and the host's a point tells only the longer.
    per_layer = [row["seconds"] / row["point"][1] for row in rows]
    of_host = [each < HOST_DECIDES * min(per_layer) for each in per_layer]
    seconds: Terms = {}
    for host in (False, True):
        chosen = [index for index, one in enumerate(of_host) if one == host]
        seconds |= least_squares(
            [terms[index].host if host else terms[index].once | terms[index].each for index in chosen],
            [taken[index] for index in chosen],
            {},
        )
    return memory, seconds


def method_of(row: dict[str, Any]) -> Method:
    return Method(row["precision"], row["activation_checkpointing"])


def work_of(row: dict[str, Any]) -> Work:
    width, layers, states, windows, length = row["point"]
    return Work(ModelConfig(d_model=width, n_layer=layers, d_state=states), row["parameters"], windows, length)


def least_squares(terms: list[Terms], values: list[float], known: Terms) -> Terms:
    """Coefficients of at least 0, some of them ``known``, with the least sum of squared relative errors."""
    names = [name for name in terms[0] if name not in known]
    matrix = np.array([[term[name] for name in names] for term in terms]) / np.array(values)[:, None]
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1
    rest = [
        1 - sum(known[name] * term[name] for name in known) / value for term, value in zip(terms, values, strict=True)
    ]
    found, _ = nnls(matrix / scale, np.array(rest))
    return known | dict(zip(names, (found / scale).tolist(), strict=True))


if __name__ == "__main__":
    main()
