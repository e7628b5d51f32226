"""RMSNorm (Zhang & Sennrich 2019, equation 4) after a residual addition, in torch operations."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.rms_norm`. Computes in fp64 where any input is, in fp32 otherwise."""
    given = (x, weight) if residual is None else (x, weight, residual)
    wide = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    total = x.to(wide) if residual is None else residual.to(wide) + x.to(wide)
    normed = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight.to(wide)
    return normed.to(x.dtype), total
