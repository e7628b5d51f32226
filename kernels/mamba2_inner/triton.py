"""Mamba-2 between its projections on a GPU, as one step of autograd that keeps its input alone.

The backward convolves once more and lets the scan give its y again: its states between chunks have to be computed
there anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d.triton import conv_backward, conv_forward, leaving_inputs
from genomamba.kernels.gated_norm.triton import norm_backward, norm_forward
from genomamba.kernels.ssd import triton as ssd

if TYPE_CHECKING:
    from genomamba.kernels.mamba2_inner.api import Inner


class _Read(NamedTuple):
    """What is made of p on its way to the scan."""

    x: Tensor  # (B, L, H, P)
    B: Tensor  # (B, L, G, N)
    C: Tensor  # (B, L, G, N)
    step: Tensor  # (B, L, H), fp32
    raw: Tensor  # (B, L, H), fp32: the step size before softplus and limits
    A: Tensor  # (H,)
    D: Tensor  # (H, P)
    table: Tensor
    through: Tensor


def fits(p: Tensor, inner: Inner) -> bool:
    """Whether this is for these kernels: gated norm, dtypes, exact products."""
    rounded = inner.tf32 and p.dtype == torch.float32
    return (
        inner.norm_weight is not None
        and p.dtype != torch.float64
        and not rounded
        and ssd.fits(inner.headdim, inner.states, p.dtype)
    )


def mamba2_inner_triton(
    p: Tensor,
    inner: Inner,
    conv_state: Tensor | None,
    scan_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `api.mamba2_inner`.

    Raises:
        KernelUnavailableError: no GPU.
    """
    ssd.check_device(p)
    heads, convolved = len(inner.A_log), len(inner.conv_weight)
    skip = inner.skip.float()
    D = (skip.view(heads, -1) if len(skip) == heads * inner.headdim else skip[:, None]).expand(heads, inner.headdim)
    A = -torch.exp(inner.A_log.float())
    assert inner.norm_weight is not None
    tensors = (inner.conv_weight, inner.conv_bias, inner.dt_bias.float(), A, D.contiguous(), inner.norm_weight)
    states = (conv_state, None if scan_state is None else scan_state.float())
    y, final = _Inner.apply(p.contiguous(), *tensors, *states, reset, reverse, inner)
    if reverse and reset is not None:
        final = torch.where(reset[:, 0, None, None, None], final.new_zeros(()), final)
    u = p[..., heads * inner.headdim :][..., :convolved]
    return y, leaving_inputs(u, inner.conv_weight.shape[1] - 1, conv_state, reset, reverse), final


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor | None,
        dt_bias: Tensor,
        A: Tensor,
        D: Tensor,
        norm_weight: Tensor,
        conv_state: Tensor | None,
        scan_state: Tensor | None,
        reset: Tensor | None,
        reverse: bool,
        inner: Inner,
    ) -> tuple[Tensor, Tensor]:
        z = p[..., : D.numel()]
        read = _read(p, conv_weight, conv_bias, dt_bias, A, D, conv_state, reset, reverse, inner)
        y, final, _ = ssd.ssd_forward(
            read.x, read.table, read.through, read.B, read.C, D, scan_state, reset, reverse
        )  # fmt: skip
        ctx.save_for_backward(p, conv_weight, conv_bias, dt_bias, A, D, norm_weight, conv_state, scan_state, reset)
        ctx.set_materialize_grads(False)
        ctx.reverse, ctx.inner = reverse, inner
        return norm_forward(y.flatten(2), z, norm_weight, inner.groups, inner.eps, inner.norm_before_gate), final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_final: Tensor | None) -> tuple[Any, ...]:
        p, conv_weight, conv_bias, dt_bias, A, D, norm_weight, conv_state, scan_state, reset = ctx.saved_tensors
        inner, reverse = ctx.inner, ctx.reverse
        scanned, convolved = D.numel(), len(conv_weight)
        coupled = inner.groups * inner.states
        if d_out is None:
            d_out = p.new_zeros((*p.shape[:2], scanned))
        read = _read(p, conv_weight, conv_bias, dt_bias, A, D, conv_state, reset, reverse, inner)
        y, _, entering = ssd.ssd_forward(
            read.x, read.table, read.through, read.B, read.C, D, scan_state, reset, reverse
        )  # fmt: skip
        dp = torch.empty_like(p)
        dz, d_conv, d_dt = dp.split((scanned, convolved, len(A)), dim=-1)
        z, conv_input, _ = p.split((scanned, convolved, len(A)), dim=-1)
        dy, d_norm = norm_backward(
            d_out.to(p.dtype), y.flatten(2), z, norm_weight, inner.groups, inner.eps, inner.norm_before_gate, dz
        )
        du = p.new_empty((*p.shape[:2], convolved))
        dx, dB, dC = du.split((scanned, coupled, coupled), dim=-1)
        d_step = torch.empty_like(read.step)
        sums = ssd.ssd_backward(
            dy.view_as(read.x), d_final, entering, read.x, read.table, read.through, A, read.B, read.C, D, reset,
            reverse, dx.unflatten(-1, D.shape), d_step, dB.unflatten(-1, (inner.groups, -1)),
            dC.unflatten(-1, (inner.groups, -1)),
        )  # fmt: skip
        d_raw = d_step * torch.sigmoid(read.raw)
        low, high = inner.dt_limit
        if (low, high) != (0.0, float("inf")):
            unlimited = F.softplus(read.raw)
            d_raw = torch.where((unlimited >= low) & (unlimited <= high), d_raw, d_raw.new_zeros(()))
        d_dt.copy_(d_raw)
        d_conv_state = (
            None if conv_state is None else torch.empty_like(conv_state, memory_format=torch.contiguous_format)
        )
        d_conv_weight, d_conv_bias = conv_backward(
            du, None, conv_input, conv_weight, conv_bias, conv_state, reset, True, reverse, d_conv, d_conv_state
        )
        return (
            dp,
            d_conv_weight.to(conv_weight.dtype),
            None if conv_bias is None else d_conv_bias.to(conv_bias.dtype),
            d_raw.sum((0, 1)),
            sums.dA,
            sums.dD,
            d_norm.to(norm_weight.dtype),
            d_conv_state,
            None if scan_state is None else sums.d_initial,
            *[None] * 3,
        )


def _read(
    p: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    conv_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    inner: Inner,
) -> _Read:
    scanned, coupled = D.numel(), inner.groups * inner.states
    _, u, dt = p.split((scanned, len(conv_weight), len(A)), dim=-1)
    u = conv_forward(u, conv_weight, conv_bias, conv_state, reset, True, reverse)
    x, B, C = u.split((scanned, coupled, coupled), dim=-1)
    raw = dt.float() + dt_bias
    step = F.softplus(raw)
    if inner.dt_limit != (0.0, float("inf")):
        step = step.clamp(*inner.dt_limit)
    B, C = B.unflatten(-1, (inner.groups, -1)), C.unflatten(-1, (inner.groups, -1))
    return _Read(x.unflatten(-1, D.shape), B, C, step, raw, A, D, *ssd.decays(step, A, reset, reverse))
