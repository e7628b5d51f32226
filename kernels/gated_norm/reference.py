"""The gated norm (Dao & Gu 2024, section 7.1) in torch operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gated_norm_reference(
    y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool
) -> Tensor:
    """Shapes as in `api.gated_norm`. Computes in fp64 where y is, in fp32 otherwise."""
    wide = y if y.dtype == torch.float64 else y.float()
    gate = F.silu(z.to(wide.dtype))
    if not norm_before_gate:
        wide = wide * gate
    grouped = wide.unflatten(-1, (groups, -1))
    normed = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    wide = normed.flatten(-2) * weight
    return (wide * gate if norm_before_gate else wide).to(y.dtype)
