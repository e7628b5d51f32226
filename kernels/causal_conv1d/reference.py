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
    first = number.new_zeros(batch, 1)
    last = number[:, -1:] if length else first
    numbers = torch.cat([number, last.expand(-1, taps - 1)] if reverse else [first.expand(-1, taps - 1), number], dim=1)
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

    # What leaves belongs to the sequence that goes on: the last one, or with reverse the one before any mark.
    edge = slice(0, taps - 1) if reverse else slice(length, None)
    open_end = first if reverse else last
    final_state = torch.where((numbers[:, edge] == open_end)[..., None], inputs[:, edge], nothing)
    return y.to(x.dtype), final_state.to(x.dtype)
