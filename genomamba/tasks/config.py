"""How a model is trained. Knows no torch, so that command-line help stays quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from genomamba.errors import ConfigError

Device = Literal["auto", "cpu", "gpu"]
Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    lr: peak learning rate.
    weight_decay: of matrices; A_log, D, biases, norms and embeddings have none.
    beta1: of Adam's first moment.
    beta2: of Adam's second moment.
    warmup: fraction of the steps over which the rate rises.
    final: the rate at the last step as a fraction of the peak.
    clip: largest norm of the gradient.
    """

    lr: float = 4e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    warmup: float = 0.1
    final: float = 0.05
    clip: float = 1.0

    def __post_init__(self) -> None:
        for field, low, high in (
            ("lr", 0, math.inf), ("weight_decay", 0, math.inf), ("beta1", 0, 1), ("beta2", 0, 1),
            ("warmup", 0, 1), ("final", 0, 1), ("clip", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, field)
            if not low <= value <= high:
                span = f"between {low} and {high}" if high < math.inf else f"at least {low}"
                raise ConfigError(f"it must be {span}", "change it", field=f"optimizer.{field}", value=value)
