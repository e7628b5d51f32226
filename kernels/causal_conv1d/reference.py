"""The short causal convolution as a sum over its taps, in the widest dtype given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_conv1d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.causal_conv1d`. Computes in fp64 where x or weight is, in fp32 otherwise."""
    wide = torch.float64 if torch.float64 in (x.dtype, weight.dtype) else torch.float32
    batch, length, channels = x.shape
    taps = weight.shape[1]
    halo = x.new_zeros(batch, taps - 1, channels) if initial_state is None else initial_state
    inputs = torch.cat([x.to(wide), halo.to(wide)] if reverse else [halo.to(wide), x.to(wide)], dim=1)

    # Tokens of one packed sequence share a number. The halo joins the sequence at the edge it borders:
    # number 0 before the first token, so that a mark on that token shuts it out; the last one's after it.
    number = torch.zeros(batch, length, dtype=torch.long, device=x.device) if reset is None else reset.cumsum(1)
    beside = number[:, -1:] if reverse and length else number.new_zeros(batch, 1)
    halo_number = beside.expand(-1, taps - 1)
    numbers = torch.cat([number, halo_number] if reverse else [halo_number, number], dim=1)
    nothing = inputs.new_zeros(())

    y = torch.zeros(batch, length, channels, dtype=wide, device=x.device)
    for k in range(taps):
        start = taps - 1 - k if reverse else k
        here = (numbers[:, start : start + length] == number)[..., None]
        y = y + weight[:, k].to(wide) * torch.where(here, inputs[:, start : start + length], nothing)
    if bias is not None:
        y = y + bias.to(wide)
    if silu:
        y = F.silu(y)

    return y.to(x.dtype), leaving_state(x, taps - 1, initial_state, reset, reverse)


def leaving_state(x: Tensor, reach: int, initial_state: Tensor | None, reset: Tensor | None, reverse: bool) -> Tensor:
    """The ``reach`` inputs at the edge that the convolution leaves through, zero behind a wall, (B, reach, D)."""
    edge = x[:, :reach] if reverse else x[:, max(x.shape[1] - reach, 0) :]
    missing = reach - edge.shape[1]
    if reset is not None:
        marks = reset[:, :reach] if reverse else reset[:, max(x.shape[1] - reach, 0) :]
        # Marks between a token and the way out: in reverse its own counts, forward only those after it.
        between = marks.cumsum(1) if reverse else marks.sum(1, keepdim=True) - marks.cumsum(1)
        edge = torch.where((between == 0)[..., None], edge, edge.new_zeros(()))
    if not missing:
        return edge.clone()
    if initial_state is None:
        rest = x.new_zeros(x.shape[0], missing, x.shape[2])
    else:
        rest = (initial_state[:, :missing] if reverse else initial_state[:, reach - missing :]).to(x.dtype)
        if reset is not None:
            rest = torch.where(reset.any(1)[:, None, None], rest.new_zeros(()), rest)
    return torch.cat([edge, rest] if reverse else [rest, edge], dim=1)
