"""The selective scan on a GPU, shape by shape: time, bytes, operations, the floor they set, and memory.

Inputs and outputs are bf16, with z, D, dt bias and softplus. Bytes are the fewest that a pass over the
tensors can move; operations are the exp2 of the algorithm, one per token, channel and state in each of the
two forward and the two backward passes. The floor is the longer of the bytes at the speed of a large copy
measured in the same run, and of the operations at the rate of the special-function units. Calls are queued one
behind the other, as in training, so that Python's time shows where it is longer than the kernels'; it stands by itself
too (`host_ms`), and a CUDA graph of the call leaves it out. Where mamba_ssm can be
imported, its kernel runs beside ours.

    python benchmarks/scan.py --out benchmarks/results/scan_h200.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from made_with import commit
from torch import Tensor

from genomamba.kernels import selective_scan

# batch, channels, length, states, and the most milliseconds that forward and forward + backward may take.
SHAPES = [
    (1, 512, 2**20, 16, 5.5, 22.0),
    (1, 512, 2**17, 16, 0.75, 3.0),
    (1, 1024, 2**20, 16, 11.0, 44.0),
    (8, 1536, 8192, 16, 1.2, 4.8),
    (64, 256, 1024, 16, 0.20, 0.85),
    (1, 512, 2**20, 64, 20.0, 85.0),
]
EXP2_PER_CYCLE = 16  # of one multiprocessor, compute capability 9.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--rows", type=int, nargs="+", help="only these rows of the table, from 0")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    rates = measure_rates()
    rows: list[dict[str, Any]] = []
    for number in options.rows or range(len(SHAPES)):
        rows.append(measure(*SHAPES[number], rates))
        print(json.dumps(rows[-1]), flush=True)
    kernels = [*compiled()]
    for kernel in kernels:
        print(kernel)
    found = {"machine": describe(options.commit), "rates": rates, "kernels": kernels, "shapes": rows}
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(
    batch: int, channels: int, length: int, states: int, most_fwd: float, most_both: float, rates: dict[str, float]
) -> dict[str, Any]:
    tensors = draw(batch, channels, length, states)
    dy = torch.randn(batch, length, channels, device="cuda", dtype=torch.bfloat16)
    row: dict[str, Any] = {"B": batch, "D": channels, "L": length, "N": states}
    row |= timings(lambda: ours(tensors), tensors, dy, graph=True)
    per_channel, per_state = batch * length * channels * 2, batch * length * states * 2
    exps = batch * length * channels * states
    # u, dt, z in and y out; again in, with dy, and their gradients out.
    traffic = {"fwd": 4 * per_channel + 2 * per_state, "both": 4 * per_channel + 7 * per_channel + 6 * per_state}
    passes = {"fwd": 2, "both": 4}
    for what in ("fwd", "both"):
        floor = 1e3 * max(traffic[what] / rates["bytes_per_s"], passes[what] * exps / rates["exp2_per_s"])
        row |= {
            f"{what}_bytes": traffic[what],
            f"{what}_exp2": passes[what] * exps,
            f"{what}_floor_ms": round(floor, 3),
        }
        row[f"{what}_of_floor"] = round(floor / row[f"{what}_ms"], 3)
    row |= {"fwd_most_ms": most_fwd, "both_most_ms": most_both}
    row["met"] = row["fwd_ms"] <= most_fwd and row["both_ms"] <= most_both
    row["met_as_graph"] = row["fwd_graph_ms"] <= most_fwd and row["both_graph_ms"] <= most_both
    if importlib.util.find_spec("mamba_ssm") is not None:
        row["mamba_ssm"] = timings(lambda: theirs(tensors), tensors, dy)
        row["times_faster"] = round(row["mamba_ssm"]["both_ms"] / row["both_ms"], 2)
    return row


def draw(batch: int, channels: int, length: int, states: int) -> dict[str, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)

    tensors = {
        "u": normal(batch, length, channels),
        "dt": normal(batch, length, channels),
        "A": -torch.arange(1, states + 1, device="cuda", dtype=torch.float32).repeat(channels, 1),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": torch.ones(channels, device="cuda"),
        "z": normal(batch, length, channels),
        "dt_bias": torch.rand(channels, generator=generator, device="cuda") * 4.6 - 6.9,
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def ours(tensors: dict[str, Tensor]) -> Tensor:
    y = selective_scan(**tensors, dt_softplus=True, impl="triton")  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    return y


def theirs(tensors: dict[str, Tensor]) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, dt, B, C, z = (tensors[name].transpose(1, 2) for name in ("u", "dt", "B", "C", "z"))
    return selective_scan_fn(u, dt, tensors["A"], B, C, tensors["D"], z, tensors["dt_bias"], True).transpose(1, 2)


def timings(
    run: Callable[[], Tensor], tensors: dict[str, Tensor], dy: Tensor, *, graph: bool = False
) -> dict[str, float]:
    """Medians in milliseconds, and the most memory that forward and backward held, inputs and all."""

    def both() -> None:
        for tensor in tensors.values():
            tensor.grad = None
        run().backward(dy)

    both()
    torch.cuda.reset_peak_memory_stats()
    both()
    peak = torch.cuda.max_memory_allocated() / 2**30
    found = {"both_ms": median_ms(both), "both_host_ms": host_ms(both), "peak_GiB": round(peak, 3)}
    with torch.no_grad():
        run()
        found |= {"fwd_ms": median_ms(run), "fwd_host_ms": host_ms(run)}
        if graph:
            found["fwd_graph_ms"] = median_ms(captured(run).replay)
    if graph:
        whole = captured(lambda: torch.autograd.grad(run(), list(tensors.values()), dy))
        found["both_graph_ms"] = median_ms(whole.replay)
    for tensor in tensors.values():
        tensor.grad = None
    return found


def median_ms(run: Callable[[], object], seconds: float = 0.4) -> float:
    """Of calls that are queued, in events around each; enough of them to fill the time, at least 5."""

    def times(count: int) -> list[float]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start, end in events:
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    first = times(2)[-1]
    return round(statistics.median(times(max(5, min(200, int(1e3 * seconds / first))))), 4)


def host_ms(run: Callable[[], object]) -> float:
    """What a call takes the processor, which queues it and does not wait: the least that it takes without a graph."""
    took = []
    for _ in range(20):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        took.append(time.perf_counter() - begun)
    torch.cuda.synchronize()
    return round(1e3 * statistics.median(took), 4)


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The call as a CUDA graph; it has run before, so that its kernels are compiled."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def measure_rates() -> dict[str, float]:
    from triton.runtime import driver

    source = torch.empty(2**32, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = median_ms(lambda: target.copy_(source)) / 1e3
    properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
    cycles = properties["multiprocessor_count"] * properties["sm_clock_rate"] * 1e3
    return {"bytes_per_s": 2 * source.numel() / seconds, "exp2_per_s": EXP2_PER_CYCLE * cycles}


def compiled() -> Iterator[dict[str, Any]]:
    """What the compiler reports of every kernel that ran."""
    from genomamba.kernels.selective_scan import triton_forward, triton_gradient, triton_rebuild

    for module in (triton_forward, triton_rebuild, triton_gradient):
        for name in dir(module):
            if not name.endswith("_kernel"):
                continue
            for kernel in getattr(module, name).jit.device_caches[torch.cuda.current_device()][0].values():
                kernel._init_handles()
                yield {"kernel": name, "registers": kernel.n_regs, "spills": kernel.n_spills}


def describe(given: str | None) -> dict[str, str | None]:
    import triton

    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda),
        "commit": given or commit(),
    }


if __name__ == "__main__":
    main()
