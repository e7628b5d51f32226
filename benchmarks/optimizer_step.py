"""What a step of each optimizer takes on a GPU, beside that of torch's Muon, which goes from matrix to matrix.

Printed for each size: milliseconds until the device is done, milliseconds that the host is busy, and kernels.

    python benchmarks/optimizer_step.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.optimizer import make_optimizer

SIZES = [(128, 4), (256, 8), (256, 32), (1024, 24)]  # d_model, layers


def main() -> None:
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    for width, layers in SIZES:
        model = CausalLM(ModelConfig(d_model=width, n_layer=layers)).cuda()
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        found = {}
        for name in ("adamw", "muon"):
            optimizer, _ = make_optimizer(model, OptimizerConfig(name=name), 100)  # type: ignore[arg-type]
            found[name] = measure(optimizer.step)
            if name == "muon":
                matrices = [p for group in optimizer.param_groups if group["stacked"] for p in group["params"]]
                found["torch_muon_alone"] = measure(torch.optim.Muon(matrices).step)
        print(json.dumps({"d_model": width, "layers": layers} | found), flush=True)


def measure(step: Callable[[], object]) -> dict[str, float]:
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    host, device = [], []
    for _ in range(20):
        began = time.perf_counter()
        step()
        host.append(time.perf_counter() - began)
        torch.cuda.synchronize()
        device.append(time.perf_counter() - began)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        torch.cuda.synchronize()
    kernels = sum(event.device_type == DeviceType.CUDA for event in seen.events())
    return {
        "ms": round(1e3 * statistics.median(device), 3),
        "host_ms": round(1e3 * statistics.median(host), 3),
        "kernels": kernels,
    }


if __name__ == "__main__":
    main()
