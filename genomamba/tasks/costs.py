"""What a training step costs, in bytes and seconds, predicted from coefficients that were measured on a device.

Both are sums of a few terms with coefficients of at least 0 (`benchmarks/plan_fit.py` measures and fits them). With P
parameters, n layers, E = d_inner, N states, and T tokens, those of a step's windows that are computed at once:

    bytes   = a P + T (b n E + c n E N + d n + e d_model + f) + g
    seconds = a P + T (b n E + c n E² + d n E N + e d_model + f) + g n + h n L + i
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from genomamba.model.config import ModelConfig
from genomamba.tasks.config import Precision

FOLDER = Path(__file__).parent / "device_costs"


class Work(NamedTuple):
    """A step, or one of the equal parts that it is computed in."""

    model: ModelConfig
    parameters: int
    windows: int
    length: int  # of a window
    parts: int = 1

    @property
    def at_once(self) -> int:
        """Windows per part."""
        return self.windows // self.parts


class Method(NamedTuple):
    """What else decides on the cost."""

    precision: Precision
    activation_checkpointing: bool


class Cost(NamedTuple):
    peak_bytes: float
    seconds: float


class DeviceCosts(NamedTuple):
    """Coefficients of one device.

    Attributes:
        device: its name.
        memory_bytes: that it has.
        methods: for each method that was measured, coefficients of ``memory_terms`` and ``time_terms``.
    """

    device: str
    memory_bytes: int
    methods: dict[Method, tuple[dict[str, float], dict[str, float]]]

    def predict(self, work: Work, method: Method) -> Cost | None:
        """None where nothing like it was measured: other mixers than Mamba, both directions, another precision."""
        if method not in self.methods or not is_covered(work.model):
            return None
        memory, seconds = self.methods[method]
        part = work._replace(windows=work.at_once, parts=1)
        once, each = time_terms(part)
        return Cost(
            sum(memory[name] * value for name, value in memory_terms(part).items()),
            sum(seconds[name] * value for name, value in once.items())
            + work.parts * sum(seconds[name] * value for name, value in each.items()),
        )


def is_covered(model: ModelConfig) -> bool:
    """Whether the terms describe such a model."""
    return set(model.mixers) == {"mamba"} and model.is_causal and not model.d_mlp


def memory_terms(work: Work) -> dict[str, float]:
    """What the bytes of a step that is computed in one part are proportional to."""
    model, tokens = work.model, work.windows * work.length
    return {
        "P": work.parameters,
        "T n E": tokens * model.n_layer * model.d_inner,
        "T n E N": tokens * model.n_layer * model.d_inner * model.d_state,
        "T n": tokens * model.n_layer,
        "T d": tokens * model.d_model,
        "T": tokens,
        "1": 1,
    }


def time_terms(work: Work) -> tuple[dict[str, float], dict[str, float]]:
    """What the seconds are proportional to: of the step once, and of each of its parts."""
    model, tokens = work.model, work.windows * work.length
    return {"P": work.parameters, "1": 1}, {
        "T n E": tokens * model.n_layer * model.d_inner,
        "T n E²": tokens * model.n_layer * model.d_inner**2,
        "T n E N": tokens * model.n_layer * model.d_inner * model.d_state,
        "T d": tokens * model.d_model,
        "T": tokens,
        "n": model.n_layer,
        "n L": model.n_layer * work.length,
    }


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
    return DeviceCosts(found["device"], found["memory_bytes"], methods)


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
    """The longest window, in bases, of which one fits; 0 when even the weights do not."""

    def fits(length: int) -> bool:
        cost = costs.predict(work._replace(windows=1, parts=1, length=length), method)
        return cost is not None and MARGIN * cost.peak_bytes <= memory_bytes

    low, high = 0, 1
    while fits(high) and high < 1 << 40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
