"""What every mixer has in common: a projection in, something that mixes along L, a projection out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """x (B, L, d_model) → (B, L, d_model); subclasses give `inner` and both projections.

    Attributes:
        d_mixed: channels that `inner` returns and ``out_proj`` reads.
        in_parts: how many matrices of equal shape, each with an output of its own, are ``in_proj``'s weight.
    """

    in_parts: int = 1

    in_proj: nn.Linear
    out_proj: nn.Linear
    d_mixed: int

    def inner(self, p: Tensor, state: Any, reset: Tensor | None, reverse: bool) -> tuple[Tensor, Any]:
        """Mixes the projected input p (B, L, ·) along L; arguments and results as in `forward`."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, state: Any = None, reset: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Any]:
        """Mixes along L.

        Args:
            x: (B, L, d_model).
            state: what the segment before this one returned; None at the start of a sequence.
            reset: bool (B, L), True at the first token of each packed sequence: a wall before that token.
            reverse: read from the last token to the first; the segment before this one is then the later one.

        Returns:
            the mixed sequence (B, L, d_model) and the state after its last token.
        """
        y, state = self.inner(self.in_proj(x), state, reset, reverse)
        return self.out_proj(y), state


def walled_pieces(reset: Tensor | None, length: int, reverse: bool) -> Iterator[tuple[int, int, Tensor | None]]:
    """Spans of L with no wall inside, in the order in which they are read.

    Yields:
        start, end, and which rows (B,) have a wall where this span is entered (None: no row).
    """
    if reset is None:
        yield 0, length, None
        return
    walls = torch.nonzero(reset.any(0)).flatten().tolist()
    edges = sorted({0, length, *walls})
    spans = list(pairwise(edges))
    for start, end in reversed(spans) if reverse else spans:
        entered = end if reverse else start
        yield start, end, reset[:, entered] if entered in walls else None


def behind_first_wall(reset: Tensor | None, state: Tensor, reverse: bool) -> Tensor:
    """The state that leaves: in reverse, zero for rows with a wall before their first token."""
    if reset is None or not reverse or not reset.shape[1]:
        return state
    return torch.where(reset[:, 0].view(-1, *[1] * (state.dim() - 1)), state.new_zeros(()), state)
