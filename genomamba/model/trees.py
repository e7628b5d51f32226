"""Boosted trees as arrays, so that they are saved as tensors are and run where the model runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genomamba.errors import ConfigError


@dataclass(frozen=True)
class TreeShape:
    """The size of a head of boosted trees.

    Attributes:
        trees: how many.
        nodes: of the largest one.
        depth: of the deepest one.
    """

    trees: int
    nodes: int
    depth: int

    def __post_init__(self) -> None:
        for field in ("trees", "nodes", "depth"):
            if getattr(self, field) < 1:
                raise ConfigError(
                    "it must be at least 1", "restore it", field=f"trees.{field}", value=getattr(self, field)
                )


class TreeHead(nn.Module):
    """features (B, F) → (B, outputs): for each output a baseline and the sum of its trees' leaves.

    Attributes:
        feature, left, right: (T, nodes) long. A row goes left where its feature is at most the threshold; both
            branches of a leaf lead to itself.
        threshold, value: (T, nodes).
        output: (T,), the output that a tree adds to.
        baseline: (outputs,).
    """

    feature: Tensor
    left: Tensor
    right: Tensor
    threshold: Tensor
    value: Tensor
    output: Tensor
    baseline: Tensor

    def __init__(self, shape: TreeShape, outputs: int) -> None:
        super().__init__()
        self.shape = shape
        size = (shape.trees, shape.nodes)
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.long))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("output", torch.zeros(shape.trees, dtype=torch.long))
        self.register_buffer("baseline", torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        rows, trees = features.shape[0], torch.arange(self.shape.trees, device=features.device)
        at = torch.zeros(rows, self.shape.trees, dtype=torch.long, device=features.device)
        for _ in range(self.shape.depth):
            goes_left = features.gather(1, self.feature[trees, at]) <= self.threshold[trees, at]
            at = torch.where(goes_left, self.left[trees, at], self.right[trees, at])
        total = self.baseline.repeat(rows, 1)
        return total.index_add(1, self.output, self.value[trees, at])
