"""How the next token is drawn from logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.genome import alphabet


class Sampling(NamedTuple):
    """How the next token is drawn from logits.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: keep that many most probable tokens; None keeps all.
        top_p: keep the fewest tokens whose probabilities sum to at least this (Holtzman et al. 2020).
        allowed: ids that may be drawn at all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    allowed: tuple[int, ...] = alphabet.BASES


EVERY_BASE = Sampling()


def check(sampling: Sampling) -> None:
    """Raises ValueError where the options are out of range."""
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or (sampling.top_k is not None and sampling.top_k < 1):
        raise ValueError(f"{sampling}: temperature >= 0, 0 < top_p <= 1 and top_k >= 1 must hold")


def barred(sampling: Sampling, vocabulary: int, device: torch.device) -> Tensor:
    """(V,), fp32, to be added to logits: 0 for ids that may be drawn, -inf for others."""
    out = torch.full((vocabulary,), -torch.inf)
    out[list(sampling.allowed)] = 0
    return out.to(device)


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator, bars: Tensor | None = None) -> Tensor:
    """One token per row, (B,), from logits (B, V); waits for no device.

    The token is that of the first of exponential clocks, each as fast as its token is probable.

    Args:
        logits: (B, V).
        sampling: how.
        generator: on the device of the logits.
        bars: what `barred` gives, where it is at hand.
    """
    if bars is None:
        bars = barred(sampling, logits.shape[-1], logits.device)
    logits = logits.float() + bars
    if sampling.temperature == 0:
        return logits.argmax(-1)
    ordered, order = (logits / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    drop = torch.zeros_like(probability, dtype=torch.bool)
    if sampling.top_p < 1:
        drop = probability.cumsum(-1) - probability >= sampling.top_p
        drop[:, 0] = False
    if sampling.top_k is not None:
        drop[:, sampling.top_k :] = True
    clocks = torch.empty_like(probability).exponential_(generator=generator) / probability.masked_fill(drop, 0)
    return order.gather(1, clocks.argmin(-1, keepdim=True)).squeeze(1)
