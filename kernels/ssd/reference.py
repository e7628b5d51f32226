"""Mamba-2's scan in the words of the paper (Dao & Gu 2024, equation 16 with scalar A), one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def ssd_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.ssd`; dt is the step size itself; all tensors share one dtype. No skip connection."""
    batch, length, heads, width = x.shape
    B, C = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (B, C))  # (B, L, H, N)
    shape = (batch, heads, width, B.shape[-1])
    h = x.new_zeros(shape) if initial_state is None else initial_state
    nothing = x.new_zeros(())
    ys: list[Tensor] = [x.new_zeros(0)] * length
    for t in reversed(range(length)) if reverse else range(length):
        # A mark at t is a wall between t - 1 and t: forward it is met before t, in reverse after t.
        if reset is not None and not reverse:
            h = torch.where(reset[:, t, None, None, None], nothing, h)
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        ys[t] = (h * C[:, t, :, None, :]).sum(-1)
        if reset is not None and reverse:
            h = torch.where(reset[:, t, None, None, None], nothing, h)
    return (torch.stack(ys, dim=1) if length else torch.zeros_like(x)), h
