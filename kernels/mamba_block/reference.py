"""A Mamba block made of the other operators; autograd keeps what each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.impl import Impl
from genomamba.kernels.rms_norm import rms_norm
from genomamba.kernels.selective_scan import selective_scan

if TYPE_CHECKING:
    from genomamba.kernels.mamba_block.api import Direction


def mamba_block_reference(
    x: Tensor,
    residual: Tensor | None,
    norm_weight: Tensor,
    in_proj: Tensor,
    in_bias: Tensor | None,
    directions: Sequence[Direction],
    reverse: Sequence[bool],
    out_proj: Tensor,
    out_bias: Tensor | None,
    eps: float,
    reset: Tensor | None,
    impl: Impl,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.mamba_block`."""
    normed, stream = rms_norm(x, norm_weight, eps=eps, residual=residual, impl=impl)
    inner, z = F.linear(normed, in_proj, in_bias).chunk(2, dim=-1)
    total = None
    for direction, backwards in zip(directions, reverse, strict=True):
        y = _read(inner, z, direction, backwards, reset, impl)
        total = y if total is None else total + y
    assert total is not None
    return F.linear(total, out_proj, out_bias), stream


def _read(inner: Tensor, z: Tensor, direction: Direction, reverse: bool, reset: Tensor | None, impl: Impl) -> Tensor:
    u = causal_conv1d(
        inner, direction.conv_weight, direction.conv_bias, silu=True, reset=reset, reverse=reverse, impl=impl
    )
    assert isinstance(u, Tensor)
    rank, states = direction.dt_proj.shape[1], direction.A_log.shape[1]
    dt, B, C = F.linear(u, direction.x_proj).split((rank, states, states), dim=-1)
    y = selective_scan(
        u,
        F.linear(dt, direction.dt_proj),
        -torch.exp(direction.A_log.float()),
        B,
        C,
        direction.D.float(),
        z,
        direction.dt_bias.float(),
        dt_softplus=True,
        reset=reset,
        reverse=reverse,
        impl=impl,
    )
    assert isinstance(y, Tensor)
    return y
