"""Mamba-2 between its projections, made of the other operators; autograd keeps what each of them needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.gated_norm import gated_norm
from genomamba.kernels.impl import Impl
from genomamba.kernels.ssd import ssd

if TYPE_CHECKING:
    from genomamba.kernels.mamba2_inner.api import Inner


def mamba2_inner_reference(
    p: Tensor,
    inner: Inner,
    conv_state: Tensor | None,
    scan_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    impl: Impl,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `api.mamba2_inner`."""
    heads, convolved = len(inner.A_log), len(inner.conv_weight)
    scanned, coupled = heads * inner.headdim, inner.groups * inner.states
    z, u, dt = p.split((scanned, convolved, heads), dim=-1)
    u, conv_state = causal_conv1d(
        u,
        inner.conv_weight,
        inner.conv_bias,
        silu=True,
        initial_state=conv_state,
        reset=reset,
        reverse=reverse,
        return_final_state=True,
        impl=impl,
    )
    x, B, C = u.split((scanned, coupled, coupled), dim=-1)
    skip = inner.skip.float()
    y, scan_state = ssd(
        x.unflatten(-1, (-1, inner.headdim)),
        dt,
        -torch.exp(inner.A_log.float()),
        B.unflatten(-1, (inner.groups, -1)),
        C.unflatten(-1, (inner.groups, -1)),
        skip.view(-1, inner.headdim) if len(skip) == scanned else skip,
        inner.dt_bias.float(),
        dt_softplus=True,
        dt_limit=inner.dt_limit,
        initial_state=scan_state,
        reset=reset,
        reverse=reverse,
        return_final_state=True,
        chunk=inner.chunk,
        tf32=inner.tf32,
        impl="chunked" if impl == "cpu" else impl,
    )
    y = y.flatten(-2)
    if inner.norm_weight is None:
        return y * F.silu(z), conv_state, scan_state
    y = gated_norm(
        y,
        z,
        inner.norm_weight,
        groups=inner.groups,
        eps=inner.eps,
        norm_before_gate=inner.norm_before_gate,
        impl=impl,
    )
    return y, conv_state, scan_state
