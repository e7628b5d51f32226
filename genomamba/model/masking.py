"""What a language model reads in training instead of the sequence: bases hidden from it, or substituted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.config import MaskingConfig


class Masked(NamedTuple):
    """A corrupted batch."""

    ids: Tensor  # (B, L), what the model sees
    predicted: Tensor  # bool (B, L), which tokens it is asked for


def mask_bases(ids: Tensor, config: MaskingConfig, uniform: Tensor) -> Masked:
    """Hides bases (Devlin et al. 2019, section 3.1); N, padding and special tokens are never asked for, never change.

    A function of its arguments alone: who draws ``uniform`` decides on what a sample's mask depends.

    Args:
        ids: (B, L), any integer dtype.
        config: the shares.
        uniform: numbers in [0, 1), (3, B, L): which token, what happens to it, which base replaces it.
    """
    which, what, base = uniform
    predicted = (ids >= alphabet.A) & (ids <= alphabet.T) & (which < config.share)
    mask = torch.full_like(ids, alphabet.MASK)
    other = (alphabet.A + (base * len(alphabet.BASES)).long()).to(ids.dtype)
    seen = torch.where(what < config.hidden, mask, torch.where(what < config.hidden + config.random, other, ids))
    return Masked(torch.where(predicted, seen, ids), predicted)


def substitute_bases(ids: Tensor, share: float) -> Tensor:
    """Point mutations: such a share of the bases, drawn from torch's generator, becomes one of the other three.

    Args:
        ids: (B, L), any integer dtype. Whatever is no base stays.
        share: in [0, 1).
    """
    chosen = (ids >= alphabet.A) & (ids <= alphabet.T) & (torch.rand(ids.shape, device=ids.device) < share)
    steps = torch.randint_like(ids, 1, len(alphabet.BASES))
    return torch.where(chosen, alphabet.A + (ids - alphabet.A + steps) % len(alphabet.BASES), ids)
