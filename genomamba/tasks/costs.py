"""What a training step costs, in bytes and seconds, predicted from coefficients that were measured on a device.

Both are sums of a few terms (`cost_terms`) with coefficients of at least 0, which `benchmarks/plan_fit.py` measures
and fits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from genomamba.tasks.config import Precision
from genomamba.tasks.cost_terms import Gpu, Method, Terms, Work, is_covered, memory_terms, time_terms
from genomamba.tasks.cuda_graph import MOST_TOKENS

FOLDER = Path(__file__).parent / "device_costs"


class Cost(NamedTuple):
    peak_bytes: float
    seconds: float


class DeviceCosts(NamedTuple):
    """Coefficients of one device.

    Attributes:
        device: its name.
        memory_bytes: that it has.
        multiprocessors: of a GPU; None for a CPU.
        methods: for each method that was measured, coefficients of ``memory_terms`` and ``time_terms``.
    """

    device: str
    memory_bytes: int
    multiprocessors: int | None
    methods: dict[Method, tuple[Terms, Terms]]

    @property
    def gpu(self) -> Gpu | None:
        return None if self.multiprocessors is None else Gpu(self.memory_bytes, self.multiprocessors)

    def predict(self, work: Work, method: Method, *, replayed: bool | None = None) -> Cost | None:
        """None where nothing like it was measured: other mixers than Mamba, both directions, another precision.

        ``replayed`` is whether a GPU replays its kernels from CUDA graphs, so that it does not wait for the host;
        unless given, where `pretrain` does so on one GPU.
        """
        if method not in self.methods or not is_covered(work.model, self.gpu):
            return None
        memory, seconds = self.methods[method]
        part = work._replace(windows=work.at_once, parts=1)
        once, each, host = time_terms(part, method, self.gpu)
        if replayed is None:
            replayed = is_replayed(part, method)
        of_part = total(seconds, each)
        if not replayed:
            of_part = max(of_part, total(seconds, host))
        peak = max(total(memory, moment) for moment in memory_terms(part, method, self.gpu))
        return Cost(peak, total(seconds, once) + work.parts * of_part)


def total(coefficients: Terms, terms: Terms) -> float:
    return sum(coefficients[name] * value for name, value in terms.items())


def is_replayed(part: Work, method: Method) -> bool:
    """Whether such a part is short enough for a CUDA graph, and nothing in it speaks against one."""
    return not method.activation_checkpointing and part.windows * part.length <= MOST_TOKENS


def known_devices() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def slug(device: str) -> str:
    """The name of a device's file: ``NVIDIA H200`` is in nvidia_h200.json."""
    return "_".join(device.lower().replace("-", " ").split())


@cache
def read_costs(name: str) -> DeviceCosts | None:
    """The coefficients of a device by its name; None where there are none."""
    path = FOLDER / f"{slug(name)}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    methods = {
        Method(one["precision"], one["activation_checkpointing"]): (one["memory"], one["seconds"])
        for one in found["methods"]
    }
    return DeviceCosts(found["device"], found["memory_bytes"], found.get("multiprocessors"), methods)


class Plan(NamedTuple):
    """A way to do the same step."""

    parts: int
    activation_checkpointing: bool
    cost: Cost
    fits: bool


MARGIN = 1.08  # of the prediction, for its error and for what an allocator cannot use


def plans(costs: DeviceCosts, work: Work, precision: Precision, memory_bytes: float) -> Iterator[Plan]:
    """Every number of equal parts and both ways to keep activations, as far as they were measured."""
    for again in (False, True):
        for parts in range(1, work.windows + 1):
            if work.windows % parts:
                continue
            cost = costs.predict(work._replace(parts=parts), Method(precision, again))
            if cost is not None:
                yield Plan(parts, again, cost, MARGIN * cost.peak_bytes <= memory_bytes)


def largest_window(costs: DeviceCosts, work: Work, method: Method, memory_bytes: float) -> int:
    """The longest window, in bases, of which one fits, to within 1 %; 0 when even the weights do not."""

    def fits(length: int) -> bool:
        cost = costs.predict(work._replace(windows=1, parts=1, length=length), method)
        return cost is not None and MARGIN * cost.peak_bytes <= memory_bytes

    # From above, where one byte for each token and channel is too much already, in small steps: a GPU keeps less of
    # windows from some length on, so that of two the longer may be the one that fits.
    high = int(memory_bytes) // work.model.d_model + 1
    while high > 1 and not fits(high * 127 // 128):
        high = high * 127 // 128
    low = high * 127 // 128
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
