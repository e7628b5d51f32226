"""The selective scan in the words of the paper: two readable lines, in the widest dtype given.

Mamba (Gu & Dao 2023), equations 1–2 with the discretisation that its code uses (zero-order hold
for A, Euler for B)::

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t
    y_t = C_t h_t + D u_t
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def selective_scan_reference(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.selective_scan`. Computes in fp64 where any input is, in fp32 otherwise."""
    wide = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in (u, dt, A, B, C)) else torch.float32
    out_dtype = u.dtype
    u, dt, A, B, C = (t.to(wide) for t in (u, dt, A, B, C))
    batch, length, channels = u.shape
    if dt_bias is not None:
        dt = dt + dt_bias.to(wide)
    if dt_softplus:
        dt = F.softplus(dt)

    shape = (batch, channels, A.shape[1])
    h = u.new_zeros(shape) if initial_state is None else initial_state.to(wide)
    nothing = u.new_zeros(shape)
    ys: list[Tensor] = [u.new_zeros(0)] * length
    for t in reversed(range(length)) if reverse else range(length):
        # A mark at t is a wall between t - 1 and t: forward it is met before t, in reverse after t.
        if reset is not None and not reverse:
            h = torch.where(reset[:, t, None, None], nothing, h)
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        ys[t] = (h * C[:, t, None, :]).sum(-1)
        if reset is not None and reverse:
            h = torch.where(reset[:, t, None, None], nothing, h)
    y = torch.stack(ys, dim=1) if length else torch.zeros_like(u)
    if D is not None:
        y = y + D.to(wide) * u
    if z is not None:
        y = y * F.silu(z.to(wide))
    return y.to(out_dtype), h
