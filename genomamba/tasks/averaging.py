"""A running mean of the weights, which generalises better than the last of them (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class RunningMean:
    """Exponential mean of a model's trainable weights.

    Args:
        model: whose weights are followed.
        decay: what remains of the mean after a step; lower in the first steps, so that it forgets where they began.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._mean: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step."""
        self.steps += 1
        if not self._mean:
            self._mean = [p.detach().clone() for p in self._weights]
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._mean, self._weights, 1 - decay)

    def state(self) -> dict[str, Any]:
        """What a run needs to go on, for `restore`."""
        return {"steps": self.steps, "mean": self._mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`; the model must be on its device."""
        self.steps = state["steps"]
        self._mean = [mean.to(weight) for mean, weight in zip(state["mean"], self._weights, strict=bool(state["mean"]))]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean for its weights while the context lasts."""
        if not self._mean:
            yield
            return
        own = [p.detach().clone() for p in self._weights]
        self._copy(self._mean)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, source: list[Tensor]) -> None:
        for weight, value in zip(self._weights, source, strict=True):
            weight.copy_(value)
