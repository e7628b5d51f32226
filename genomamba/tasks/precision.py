"""bf16 with master weights in fp32."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import MixedPrecision, Precision


class Bf16Mixed(MixedPrecision):
    """bf16 without loss scaling, so that clipping and a fused optimizer go together; Lightning refuses the pair."""

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
        Precision.clip_gradients(self, *args, **kwargs)
