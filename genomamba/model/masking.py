"""What a masked language model is trained on: bases hidden from it (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.errors import ConfigError
from genomamba.genome import alphabet


@dataclass(frozen=True)
class MaskingConfig:
    """Attributes:
    share: of bases that are to be predicted.
    hidden: of these, the share that [MASK] replaces.
    random: of these, the share that a random base replaces; the others stay.
    """

    share: float = 0.15
    hidden: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        for field in ("share", "hidden", "random"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigError("it must lie in [0, 1]", "change it", field=field, value=getattr(self, field))
        if self.hidden + self.random > 1:
            raise ConfigError("hidden + random must not exceed 1", "change one", field="hidden", value=self.hidden)


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
