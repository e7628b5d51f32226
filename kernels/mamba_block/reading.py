"""One direction's way from the projected input to the gated output, and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d.triton import conv_backward, conv_forward
from genomamba.kernels.mamba_block.api import Direction
from genomamba.kernels.selective_scan.triton_backward import Gradients, scan_backward
from genomamba.kernels.selective_scan.triton_launch import Inputs


class Edges(NamedTuple):
    """What passes between one piece of L and its neighbours; nothing at the ends of L."""

    state: Tensor | None = None  # (B, D, N), entering
    inputs: Tensor | None = None  # (B, K - 1, D), of the convolution, entering
    d_state: Tensor | None = None  # (B, D, N), the gradient of the state that leaves


class Kept(NamedTuple):
    """What the backward need not compute again."""

    u: Tensor | None = None
    dbl: Tensor | None = None
    dt: Tensor | None = None


class Reading(NamedTuple):
    """The scan's inputs on the way from the projected one."""

    dbl: Tensor  # (B, L, R + 2 N): dt before its projection, B and C side by side
    scan: Inputs


def convolve(p: Tensor, direction: Direction, reset: Tensor | None, reverse: bool, edges: Edges = Edges()) -> Tensor:  # noqa: B008
    """u (B, L, D)."""
    inner = p.chunk(2, dim=-1)[0]
    return conv_forward(inner, direction.conv_weight, direction.conv_bias, edges.inputs, reset, True, reverse)


def read(
    p: Tensor,
    direction: Direction,
    reset: Tensor | None,
    reverse: bool,
    edges: Edges = Edges(),  # noqa: B008
    kept: Kept = Kept(),  # noqa: B008
) -> Reading:
    """Convolution and projections of p (B, L, 2 D), but for what is at hand."""
    u, dbl, dt = kept
    if u is None:
        u = convolve(p, direction, reset, reverse, edges)
    rank, states = direction.dt_proj.shape[1], direction.A_log.shape[1]
    if dbl is None:
        dbl = F.linear(u, direction.x_proj.to(p.dtype))
    if dt is None:
        dt = torch.mm(dbl.flatten(0, 1)[:, :rank], direction.dt_proj.to(p.dtype).t()).view_as(u)
    _, B, C = dbl.split((rank, states, states), dim=-1)
    A, z = -torch.exp(direction.A_log.float()), p.chunk(2, dim=-1)[1]
    bias, skip = direction.dt_bias.float(), direction.D.float()
    return Reading(dbl, Inputs(u, dt, A, B, C, skip, z, bias, edges.state, reset, True, reverse))


def read_backward(
    p: Tensor,
    reading: Reading,
    dy: Tensor,
    entering: Tensor,
    direction: Direction,
    reset: Tensor | None,
    reverse: bool,
    dp: Tensor,
    edges: Edges,
    scratch: int,
    *,
    y: Tensor | None = None,
    spend_dt: bool = True,
    spend_dy: bool = True,
) -> tuple[Tensor, Direction, Tensor | None, Tensor | None]:
    """Writes the gradient of p to ``dp``, contiguous; overwrites the scan's dt and ``dy`` if allowed.

    With ``y``, that of the other direction, adds to ``dp`` and to it.

    Returns:
        gated y, the gradients of the direction's weights, fp32 or the projections' dtype, of the state that
        entered, and of the convolution's inputs that did.
    """
    dbl, scan = reading
    u = scan.u
    rank, states = direction.dt_proj.shape[1], direction.A_log.shape[1]
    d_inner, dz = dp.chunk(2, dim=-1)
    # What the scan's backward reads of a token it has read before it writes there.
    d_dbl, du = torch.empty_like(dbl), torch.empty_like(u)
    ddt = scan.dt if spend_dt else torch.empty_like(u)
    add = y is not None
    if y is None:
        y = dy if spend_dy else torch.empty_like(u)
    _, dB, dC = d_dbl.split((rank, states, states), dim=-1)
    sums = scan_backward(dy, edges.d_state, entering, scan, Gradients(du, ddt, dB, dC, dz, y, add), scratch)
    flat, flat_dt = ddt.flatten(0, 1), dbl.flatten(0, 1)[:, :rank]
    torch.mm(flat, direction.dt_proj.to(p.dtype), out=d_dbl.flatten(0, 1)[:, :rank])
    more_du = F.linear(d_dbl, direction.x_proj.to(p.dtype).t())
    d_inputs = None if edges.inputs is None else torch.empty_like(edges.inputs)
    d_conv, d_conv_bias = conv_backward(
        du, more_du, p.chunk(2, dim=-1)[0], direction.conv_weight, direction.conv_bias, edges.inputs, reset, True,
        reverse, d_inner, d_inputs, add=add,
    )  # fmt: skip
    gradients = Direction(
        conv_weight=d_conv,
        conv_bias=None if direction.conv_bias is None else d_conv_bias,
        x_proj=d_dbl.flatten(0, 1).t() @ u.flatten(0, 1),
        dt_proj=torch.mm(flat.t(), flat_dt),
        dt_bias=sums.d_bias,
        A_log=sums.dA * scan.A,
        D=sums.dD,
    )
    return y, gradients, sums.d_initial, d_inputs
