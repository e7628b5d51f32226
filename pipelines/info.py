"""Print versions, devices, the model that ships, and which scan runs here and whether it agrees with the reference."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass

from genomamba import __version__

PACKAGES = ("torch", "triton", "numba", "lightning", "pysam", "pyfaidx", "biopython", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Config:
    """This command has no options of its own."""


def run(config: Config) -> int:
    import torch

    from genomamba.kernels.selective_scan.agreement import TOLERANCE, disagreement
    from genomamba.pipelines.shipped import shipped_lines

    lines = [("genomamba", __version__), ("python", f"{platform.python_version()} on {platform.platform()}")]
    for package in PACKAGES:
        try:
            lines.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            lines.append((package, "not installed"))
    lines.append(("cpu", f"{torch.get_num_threads()} threads"))
    devices = [torch.device("cpu")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
        devices.append(torch.device("cuda", index))
    if len(devices) == 1:
        lines.append(("gpu", "none that torch can use"))
    lines += shipped_lines()
    right = True
    for device in devices:
        impl, error = disagreement(device)
        right &= error <= TOLERANCE
        verdict = "agrees with" if error <= TOLERANCE else "DISAGREES with"
        lines.append((f"scan on {device}", f"{impl}; {verdict} the fp64 reference (relative error {error:.1e})"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}")
    if not right:
        print("a kernel is wrong on this machine; results from it must not be trusted", file=sys.stderr)
    return 0 if right else 1
