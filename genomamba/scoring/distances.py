"""How far a change moves what a model makes of a sequence: distances between mean hidden states."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Distances(NamedTuple):
    """Between the hidden states of alt and ref, mean of the strands that were read.

    ``site`` compares means over the bases that change, with one base on either side where lengths differ; ``pool``
    means over the whole window.
    """

    site_l1: float
    site_l2: float
    site_cosine: float  # 1 - cosine of the angle: 0 for one direction, 2 for opposite ones
    pool_l1: float
    pool_l2: float
    pool_cosine: float


def distances(ref: Tensor, alt: Tensor) -> Tensor:
    """L1, L2 and cosine distance along the last axis, (..., D) → (..., 3), fp64."""
    ref, alt = ref.double(), alt.double()
    change = alt - ref
    cosine = 1 - F.cosine_similarity(ref, alt, dim=-1)
    return torch.stack([change.abs().sum(-1), change.square().sum(-1).sqrt(), cosine], dim=-1)


def span_sum(hidden: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Sum over L of hidden (R, L, D) within [start, end) of each row; start and end are (R,)."""
    position = torch.arange(hidden.shape[1], device=hidden.device)
    inside = (position >= start[:, None]) & (position < end[:, None])
    return torch.einsum("rl,rld->rd", inside.to(hidden.dtype), hidden)


def span_mean(hidden: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean over L of hidden (R, L, D) within [start, end) of each row; 0 where that is empty."""
    return span_sum(hidden, start, end) / (end - start).clamp(min=1).to(hidden.dtype).unsqueeze(-1)


def site_mean(hidden: Tensor, start: Tensor, end: Tensor, length: Tensor, anchor: Tensor) -> Tensor:
    """Mean over the bases that change.

    Args:
        hidden: (R, L, D).
        start: (R,), of the change.
        end: (R,), of the allele there.
        length: (R,), tokens that are not padding.
        anchor: (R,), 1 where the alleles differ in length, 0 elsewhere: so many bases on either side count too, so
            that no allele is empty.
    """
    return span_mean(hidden, (start - anchor).clamp(min=0), torch.minimum(end + anchor, length))
