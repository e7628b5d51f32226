"""Norms of a residual stream that is summed in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.rms_norm import rms_norm
from genomamba.kernels.selective_scan import Impl


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019)."""

    def __init__(self, d_model: int, eps: float, impl: Impl) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps
        self.impl: Impl = impl

    def forward(self, x: Tensor, residual: Tensor | None, mirrored: bool = False) -> tuple[Tensor, Tensor]:
        """(norm(residual + x), residual + x in fp32), both of x's shape; with ``mirrored`` the stream's
        channels are in reverse order, and so is what is returned."""
        weight = self.weight.flip(0) if mirrored else self.weight
        return rms_norm(x, weight, eps=self.eps, residual=residual, impl=self.impl)


class LayerNorm(nn.Module):
    """Layer norm (Ba et al. 2016) with the interface of `RMSNorm`."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor, residual: Tensor | None, mirrored: bool = False) -> tuple[Tensor, Tensor]:
        """As `RMSNorm.forward`."""
        weight, bias = (t.flip(0) if mirrored else t for t in (self.weight, self.bias))
        wide = x if x.dtype == torch.float64 else x.float()
        total = wide if residual is None else residual + wide
        return F.layer_norm(total, total.shape[-1:], weight, bias, self.eps).to(x.dtype), total
