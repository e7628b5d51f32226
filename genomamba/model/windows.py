"""Models that look ahead, on sequences of any length: overlapping windows, and both strands averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.model.backbone import LanguageModel
from genomamba.model.strands import at, partner, walls


class WindowSpan(NamedTuple):
    """One window of a sequence, and the part of it that is kept; all four are positions in the sequence."""

    start: int
    end: int
    first: int
    last: int  # one past the last that is kept


def window_spans(length: int, *, window: int, overlap: int) -> Iterator[WindowSpan]:
    """Windows over ``length`` tokens, in order; the parts that are kept lie side by side and cover them.

    Neighbouring windows share ``overlap`` tokens, half of which each gives up: every token sees at least
    overlap // 2 tokens on either side, where the sequence has them.

    Raises:
        ValueError: not 0 ≤ overlap < window.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap={overlap}: 0 <= overlap < window={window} must hold")
    margin = overlap // 2
    kept = 0
    while kept < length:
        start = max(0, min(kept - margin, length - window))
        end = min(start + window, length)
        last = length if end == length else end - (overlap - margin)
        yield WindowSpan(start, end, kept, last)
        kept = last


class WindowPart(NamedTuple):
    """What is kept of one window."""

    start: int  # of the part in the sequence, 0-based
    logits: Tensor  # (B, l, padded vocabulary)


@torch.no_grad()
def stream_windows(model: LanguageModel, ids: Tensor, *, window: int, overlap: int) -> Iterator[WindowPart]:
    """Logits of a long sequence, window by window, in order, each token once; memory does not grow with L.

    A model that looks both ways cannot carry a state; see `window_spans` for what each token sees.

    Args:
        model: in eval mode.
        ids: (B, L), without padding.
        window: tokens per window.
        overlap: tokens that neighbouring windows share.

    Raises:
        ValueError: not 0 ≤ overlap < window.
    """
    for start, end, first, last in window_spans(ids.shape[1], window=window, overlap=overlap):
        yield WindowPart(first, model(ids[:, start:end])[:, first - start : last - start])


def conjoined(model: LanguageModel, ids: Tensor, length: Tensor | None = None) -> Tensor:
    """Logits averaged over both strands, of a masked model that is not equivariant by itself (post-hoc conjoining).

    Args:
        model: of one strand, whose logits at t speak of token t.
        ids: (B, L).
        length: (B,), tokens of each row that are not padding.

    Returns:
        (B, L, padded vocabulary): those of the reverse complement are these, complemented and reversed.
    """
    index = partner(ids, walls(ids, None, length))
    complement = model.backbone.complement
    other = model(complement[ids.long().gather(1, index)], length=length)
    return (model(ids, length=length) + at(other, index)[..., complement]) / 2
