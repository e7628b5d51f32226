"""What a language model reads in training: the shares, and what is never hidden or substituted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genomamba.errors import ConfigError
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import MaskingConfig, ModelConfig
from genomamba.model.masking import mask_bases, substitute_bases


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_substitution_is_one_of_the_other_three_bases(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ids = torch.arange(12, dtype=dtype).repeat(20, 3000)
    seen = substitute_bases(ids, 0.2)
    is_base = (ids >= alphabet.A) & (ids <= alphabet.T)
    assert seen.dtype == dtype
    assert torch.equal(seen[~is_base], ids[~is_base])
    for base in range(alphabet.A, alphabet.T + 1):
        counts = torch.bincount(seen[ids == base].long(), minlength=12)[alphabet.A : alphabet.T + 1]
        shares = counts / counts.sum()
        assert shares[base - alphabet.A] == pytest.approx(0.8, abs=0.01)
        assert torch.cat((shares[: base - alphabet.A], shares[base - alphabet.A + 1 :])).sub(0.2 / 3).abs().max() < 0.01


def test_substitutions_change_what_is_read_and_not_what_is_predicted() -> None:
    torch.manual_seed(0)
    ids = torch.randint(alphabet.A, alphabet.T + 1, (2, 64))
    plain = CausalLM(ModelConfig(d_model=8, n_layer=1, d_state=4))
    model = CausalLM(ModelConfig(d_model=8, n_layer=1, d_state=4, substitution=0.3))
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval().log_likelihood(ids), plain.log_likelihood(ids))
    torch.manual_seed(1)
    found = model.train().log_likelihood(ids)
    torch.manual_seed(1)
    read = substitute_bases(ids, 0.3)
    logits = plain(read)[:, :-1, alphabet.A : alphabet.T + 1].log_softmax(-1)
    torch.testing.assert_close(found, logits.gather(-1, (ids[:, 1:] - alphabet.A)[..., None])[..., 0])
    assert not torch.equal(read, ids)


def test_a_masked_model_reads_no_substitutions() -> None:
    with pytest.raises(ConfigError, match=r"masking\.random"):
        MaskedLM(ModelConfig(d_model=8, n_layer=1, bidirectional=True, substitution=0.1))
