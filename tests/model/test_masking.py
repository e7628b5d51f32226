"""Masked language modelling: the shares, and what is never hidden."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genomamba.errors import ConfigError
from genomamba.genome import alphabet
from genomamba.model.config import MaskingConfig
from genomamba.model.masking import mask_bases


def masked(ids: Tensor, config: MaskingConfig) -> tuple[Tensor, Tensor]:
    return mask_bases(ids, config, torch.rand(3, *ids.shape))


def test_shares_are_fifteen_and_eighty_ten_ten() -> None:
    ids = torch.randint(alphabet.A, alphabet.T + 1, (20, 20_000), dtype=torch.uint8)
    seen, predicted = masked(ids, MaskingConfig())
    assert predicted.float().mean() == pytest.approx(0.15, abs=0.002)
    hidden, kept = seen[predicted] == alphabet.MASK, seen[predicted] == ids[predicted]
    assert hidden.float().mean() == pytest.approx(0.8, abs=0.004)
    assert kept.float().mean() == pytest.approx(0.1 + 0.1 / 4, abs=0.004)  # a random base is the same one in four times
    random = seen[predicted][~hidden & ~kept]
    shares = torch.bincount(random.long(), minlength=16) / len(random)
    assert shares[7:11].sub(0.25).abs().max() < 0.02
    assert shares[7:11].sum() == 1
    assert torch.equal(seen[~predicted], ids[~predicted])


def test_n_padding_and_special_tokens_are_left_alone() -> None:
    ids = torch.arange(12, dtype=torch.uint8).repeat(1, 500)
    seen, predicted = masked(ids, MaskingConfig(share=1.0, hidden=1.0, random=0.0))
    is_base = (ids >= alphabet.A) & (ids <= alphabet.T)
    assert torch.equal(predicted, is_base)
    assert torch.equal(seen[~is_base], ids[~is_base])
    assert (seen[is_base] == alphabet.MASK).all()


def test_same_numbers_same_mask() -> None:
    ids, uniform = torch.randint(7, 12, (2, 50)), torch.rand(3, 2, 50)
    first, second = (mask_bases(ids, MaskingConfig(), uniform) for _ in range(2))
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.predicted, second.predicted)


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"share=1\.5"):
        MaskingConfig(share=1.5)
    with pytest.raises(ConfigError, match="hidden"):
        MaskingConfig(hidden=0.95)
