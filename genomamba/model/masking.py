"""What a masked language model is trained on: bases hidden from it (Devlin et al. 2019, section 3.1)."""

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
    """Hides bases; N, padding and special tokens are never asked for and never change.

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
