"""Both strands of a sequence: where a token's partner stands, and walls around padding."""

from __future__ import annotations

import torch
from torch import Tensor


def walls(ids: Tensor, reset: Tensor | None, length: Tensor | None) -> Tensor | None:
    """``reset`` with a wall before each row's padding, so that padding is a sequence of its own.

    Args:
        ids: (B, L).
        reset: bool (B, L), True at the first token of each packed sequence, or None.
        length: (B,): tokens that are not padding, or None for all.
    """
    if length is None:
        return reset
    padding = torch.arange(ids.shape[1], device=ids.device) == length.to(ids.device)[:, None]
    return padding if reset is None else reset | padding


def partner(ids: Tensor, reset: Tensor | None) -> Tensor:
    """(B, L): the position of each token on the other strand, each packed sequence being turned where it lies."""
    batch, length = ids.shape
    position = torch.arange(length, device=ids.device).expand(batch, length)
    if reset is None:
        return position.flip(1)
    first = torch.where(reset, position, 0).cummax(1).values
    beyond = torch.where(reset, position, length).flip(1).cummin(1).values.flip(1)  # the next wall at or after it
    last = torch.cat([beyond[:, 1:], beyond.new_full((batch, 1), length)], 1) - 1
    return first + last - position


def at(hidden: Tensor, index: Tensor) -> Tensor:
    """hidden (B, L, D) with token ``index[b, t]`` at t."""
    return hidden.gather(1, index.unsqueeze(-1).expand_as(hidden))
