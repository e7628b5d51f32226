"""A Mamba block on a GPU that keeps little.

Kept are the stream and the states that enter the scan's chunks. The backward goes from the stream through norm,
projection and convolution once more; the scan itself, whose states are at hand, is not run again: its backward
rebuilds them anyway and hands out the gated y on the way. Where the projected input is small enough, it and the
convolved one are kept too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d.triton import conv_backward, conv_forward
from genomamba.kernels.mamba_block.api import Direction
from genomamba.kernels.rms_norm.triton import norm_backward, norm_forward
from genomamba.kernels.selective_scan.triton import check_runnable
from genomamba.kernels.selective_scan.triton_launch import Gradients, Inputs, scan_backward, scan_forward

# Scratch of the scan's backward. More fills the GPU better, and what the block need not keep leaves room for it.
_SCRATCH = 1 << 30
# Bytes of the projected input up to which it is kept. Computing it again costs a twentieth of a step.
_SMALL = 1 << 28


def mamba_block_triton(
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
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.mamba_block`.

    Raises:
        KernelUnavailableError: no GPU, fp64 inputs, or more than 256 states.
    """
    states = directions[0].A_log.shape[1]
    check_runnable(x, states, norm_weight, in_proj, out_proj)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    weights = [tensor for direction in directions for tensor in direction]
    return _Block.apply(
        x, residual, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, tuple(reverse), eps, dtype, *weights
    )


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        norm_weight: Tensor,
        in_proj: Tensor,
        in_bias: Tensor | None,
        out_proj: Tensor,
        out_bias: Tensor | None,
        reset: Tensor | None,
        reverse: tuple[bool, ...],
        eps: float,
        dtype: torch.dtype,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            normed, stream = norm_forward(x, norm_weight, residual, eps, dtype)
            p = F.linear(normed, in_proj.to(dtype), _to(in_bias, dtype))
            del normed
            wanted = any(ctx.needs_input_grad)
            small = p.numel() * p.element_size() <= _SMALL
            total, entering, convolved = None, [], []
            for direction, backwards in zip(_directions(weights), reverse, strict=True):
                u = _convolve(p, direction, reset, backwards)
                y, _, states = scan_forward(_scan_inputs(p, u, direction, reset, backwards)[1], keep=wanted)
                entering.append(states)
                convolved.append(u if small else None)
                total = y if total is None else total.add_(y)
                del u
            assert total is not None
            out = F.linear(total, out_proj.to(dtype), _to(out_bias, dtype))
        ctx.save_for_backward(
            stream, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, p if small else None,
            *entering, *convolved, *weights,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.reverse, ctx.eps, ctx.dtype = reverse, eps, dtype
        ctx.x_dtype, ctx.residual_dtype = x.dtype, None if residual is None else residual.dtype
        return out, stream

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_stream: Tensor | None) -> tuple[Any, ...]:
        stream, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, p, *rest = ctx.saved_tensors
        count = len(ctx.reverse)
        entering, convolved, weights = rest[:count], rest[count : 2 * count], rest[2 * count :]
        dtype = ctx.dtype
        if d_out is None:
            d_out = stream.new_zeros(stream.shape, dtype=dtype)
        with torch.autocast(stream.device.type, enabled=False):
            d_out = d_out.to(dtype)
            normed = norm_forward(stream, norm_weight, None, ctx.eps, dtype, keep_stream=False)[0]
            if p is None:
                p = F.linear(normed, in_proj.to(dtype), _to(in_bias, dtype))
            dy = d_out @ out_proj.to(dtype)
            dp = torch.empty_like(p)
            y, d_weights = None, []
            for k, direction in enumerate(_directions(weights)):
                u = _convolve(p, direction, reset, ctx.reverse[k]) if convolved[k] is None else convolved[k]
                own, gradients = _read_backward(
                    p, u, dy, entering[k], direction, reset, ctx.reverse[k], dp, add=k > 0
                )  # fmt: skip
                y = own if y is None else y.add_(own)
                d_weights += gradients
            assert y is not None
            d_out_proj = _outer(d_out, y).to(out_proj.dtype)
            d_out_bias = None if out_bias is None else d_out.flatten(0, 1).sum(0).to(out_bias.dtype)
            del y, dy, p
            d_in_proj = _outer(dp, normed).to(in_proj.dtype)
            d_in_bias = None if in_bias is None else dp.flatten(0, 1).sum(0).to(in_bias.dtype)
            d_normed = dp @ in_proj.to(dtype)
            del dp, normed
            narrow = None if ctx.x_dtype == torch.float32 else ctx.x_dtype
            d_sum, d_narrow, d_norm = norm_backward(d_normed, d_stream, stream, norm_weight, ctx.eps, narrow)
        return (
            d_sum if d_narrow is None else d_narrow,
            None if ctx.residual_dtype is None else d_sum.to(ctx.residual_dtype),
            d_norm.to(norm_weight.dtype),
            d_in_proj,
            d_in_bias,
            d_out_proj,
            d_out_bias,
            *[None] * 4,
            *d_weights,
        )


def _convolve(p: Tensor, direction: Direction, reset: Tensor | None, reverse: bool) -> Tensor:
    inner = p.chunk(2, dim=-1)[0]
    return conv_forward(inner, direction.conv_weight, direction.conv_bias, None, reset, True, reverse)


def _scan_inputs(
    p: Tensor, u: Tensor, direction: Direction, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Inputs]:
    """dt before its projection, B and C side by side, (B, L, R + 2 N), and what the scan is given."""
    rank, states = direction.dt_proj.shape[1], direction.A_log.shape[1]
    dbl = F.linear(u, direction.x_proj.to(p.dtype))
    dt = torch.mm(dbl.flatten(0, 1)[:, :rank], direction.dt_proj.to(p.dtype).t()).view_as(u)
    _, B, C = dbl.split((rank, states, states), dim=-1)
    A, z = -torch.exp(direction.A_log.float()), p.chunk(2, dim=-1)[1]
    return dbl, Inputs(
        u, dt, A, B, C, direction.D.float(), z, direction.dt_bias.float(), None, reset, True, reverse
    )  # fmt: skip


def _read_backward(
    p: Tensor,
    u: Tensor,
    dy: Tensor,
    entering: Tensor,
    direction: Direction,
    reset: Tensor | None,
    reverse: bool,
    dp: Tensor,
    *,
    add: bool,
) -> tuple[Tensor, list[Tensor | None]]:
    """Writes the gradient of p to ``dp``, or adds to it; returns gated y and the gradients of the direction."""
    dbl, scan = _scan_inputs(p, u, direction, reset, reverse)
    rank, states = direction.dt_proj.shape[1], direction.A_log.shape[1]
    d_inner, dz = dp.chunk(2, dim=-1)
    d_dbl, du, ddt, y = torch.empty_like(dbl), torch.empty_like(u), torch.empty_like(u), torch.empty_like(u)
    _, dB, dC = d_dbl.split((rank, states, states), dim=-1)
    own_dz = torch.empty_like(u) if add else dz
    sums = scan_backward(dy, None, entering, scan, Gradients(du, ddt, dB, dC, own_dz, y), _SCRATCH)
    if add:
        dz += own_dz
    flat = ddt.flatten(0, 1)
    torch.mm(flat, direction.dt_proj.to(p.dtype), out=d_dbl.flatten(0, 1)[:, :rank])
    d_dt_proj = torch.mm(flat.t(), dbl.flatten(0, 1)[:, :rank])
    more_du = F.linear(d_dbl, direction.x_proj.to(p.dtype).t())
    d_conv, d_conv_bias = conv_backward(
        du, more_du, p.chunk(2, dim=-1)[0], direction.conv_weight, direction.conv_bias, None, reset, True, reverse,
        d_inner, None, add=add,
    )  # fmt: skip
    gradients = Direction(
        conv_weight=d_conv,
        conv_bias=None if direction.conv_bias is None else d_conv_bias,
        x_proj=_outer(d_dbl, u),
        dt_proj=d_dt_proj,
        dt_bias=sums.d_bias,
        A_log=sums.dA * scan.A,
        D=sums.dD,
    )
    return y, [None if g is None else g.to(w.dtype) for g, w in zip(gradients, direction, strict=True)]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ over tokens of left_t right_tᵀ."""
    return left.flatten(0, 1).t() @ right.flatten(0, 1)


def _directions(weights: Sequence[Any]) -> list[Direction]:
    size = len(Direction._fields)
    return [Direction(*weights[k : k + size]) for k in range(0, len(weights), size)]


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
