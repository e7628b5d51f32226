"""Whether a run fits into the device's memory, found out before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from genomamba.errors import ConfigError
from genomamba.tasks.config import Precision
from genomamba.tasks.cost_terms import Method, Work
from genomamba.tasks.costs import MARGIN, DeviceCosts, largest_window, plans, read_costs

GIB = 1 << 30
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, version 2: bytes, or "max"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_bytes(device: torch.device) -> int:
    """What a run may use: what is free on a GPU; on a CPU all that the machine has, or its container may take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:  # no such file where nothing is limited
        return installed
    return installed if limit == "max" else min(installed, int(limit))


def check_fits(work: Work, method: Method, device: torch.device) -> str | None:
    """Refuses what will not fit, with what would.

    Returns:
        Why nothing could be checked, or None.

    Raises:
        ConfigError: the step needs more memory than there is.
    """
    costs = read_costs(device_name(device))
    if costs is None:
        return f"no costs are known for {device_name(device)}: whether the run fits into its memory is not checked"
    if device.type == "cpu" and method not in costs.methods:
        # Autocast on a CPU keeps the weights in fp32, and needs little less than fp32 throughout, which was measured.
        method = method._replace(precision="32-true")
    cost = costs.predict(work, method)
    if cost is None:
        return "no costs are known for such a model: whether the run fits into memory is not checked"
    free = free_bytes(device)
    if MARGIN * cost.peak_bytes > free:
        raise ConfigError(
            f"a step of {work.windows} windows of {work.length:,} bases would need {cost.peak_bytes / GIB:.1f} GiB"
            f" at its peak, and {free / GIB:.1f} GiB are free on {device_name(device)}",
            remedy(costs, work, method.precision, free),
            field="batch_size",
            value=work.windows,
        )
    return None


@contextmanager
def explained(work: Work, method: Method, device: torch.device) -> Iterator[None]:
    """Turns running out of memory, on a GPU or a CPU, into what to do about it.

    Raises:
        ConfigError: memory ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not on_cpu:
            raise
        costs = read_costs(device_name(device))
        cost = None if costs is None else costs.predict(work, method)
        hint = "pass --accumulate or --activation-checkpointing"
        if costs is not None and cost is not None:  # there is less than this step's need
            hint = remedy(costs, work, method.precision, cost.peak_bytes)
        raise ConfigError(
            f"memory ran out on {device_name(device)} with {work.at_once} windows of {work.length:,} bases at once in"
            f" {method.precision}",
            f"{hint}; `genomamba plan` lists what fits",
            field="batch_size",
            value=work.windows,
        ) from error


def remedy(costs: DeviceCosts, work: Work, precision: Precision, free: float) -> str:
    """The fastest way to do the same step that fits, otherwise the largest one that does, as options."""
    fitting = [plan for plan in plans(costs, work, precision, free) if plan.fits]
    if fitting:
        best = min(fitting, key=lambda plan: plan.cost.seconds)
        return f"pass {as_options(best.parts, best.activation_checkpointing)}"
    windows = {
        again: largest_window(costs, work, Method(precision, again), free)
        for again in (False, True)
        if Method(precision, again) in costs.methods
    }
    again = max(windows, key=lambda one: windows[one])
    if windows[again] < 2:
        return "take a smaller model"
    return f"pass {as_options(work.windows, again)} --window {windows[again]}, or take a smaller model"


def as_options(parts: int, activation_checkpointing: bool) -> str:
    """What to type."""
    return f"--accumulate {parts}{' --activation-checkpointing' if activation_checkpointing else ''}"
