"""The variant head: rows, strands and padding; the llr against its definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig, VariantHeadConfig
from genomamba.model.heads import SequencePair, VariantClassifier, pair_llr

CONFIG = ModelConfig(d_model=16, n_layer=2, d_state=4)


def lively(config: ModelConfig) -> VariantClassifier:
    torch.manual_seed(0)
    model = VariantClassifier(config, VariantHeadConfig(d_hidden=8, flank=2)).eval()
    with torch.no_grad():  # an untrained head's outputs are too alike to tell rows apart
        for parameter in model.head.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model() -> VariantClassifier:
    return lively(CONFIG)


@pytest.fixture(scope="module", params=["causal", "both ways", "both strands"])
def any_model(request: pytest.FixtureRequest, model: VariantClassifier) -> VariantClassifier:
    if request.param == "causal":
        return model
    return lively(dataclasses.replace(CONFIG, bidirectional=True, rc_equivariant=request.param == "both strands"))


def pair(variants: int, strands: int, length: int) -> SequencePair:
    ids = torch.randint(alphabet.A, alphabet.T + 1, (variants, strands, 2, length), dtype=torch.uint8)
    sizes = torch.randint(length // 2, length + 1, (variants, strands, 2))
    ids[torch.arange(length) >= sizes.unsqueeze(-1)] = alphabet.PAD
    start = torch.randint(0, length // 3, (variants, strands, 2))
    return SequencePair(ids, sizes, torch.stack([start, start + 1], -1))


@torch.no_grad()
def test_llr_is_the_difference_of_log_likelihoods(model: VariantClassifier) -> None:
    given = pair(3, 2, 40)
    _, llr = model(given)
    for v in range(3):
        expected = 0.0
        for s in range(2):
            for allele, sign in ((0, -1), (1, 1)):
                row = given.ids[v, s, allele, : given.length[v, s, allele]].unsqueeze(0)
                logits = model.lm_head(model.backbone(row)[0])[0, :-1, alphabet.A : alphabet.T + 1]
                log_p = torch.log_softmax(logits, -1)[torch.arange(row.shape[1] - 1), row[0, 1:].long() - alphabet.A]
                expected += sign * float(log_p.sum()) / 2
        assert float(llr[v]) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_what_stands_behind_the_padding_and_in_other_rows_changes_nothing(any_model: VariantClassifier) -> None:
    model, given = any_model, pair(4, 2, 40)
    logit, llr = model(given)
    longer = torch.full((4, 2, 2, 55), alphabet.PAD, dtype=torch.uint8)
    longer[..., :40] = given.ids
    padded_logit, padded_llr = model(SequencePair(longer, given.length, given.site))
    torch.testing.assert_close(padded_logit, logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded_llr, llr, rtol=1e-4, atol=1e-4)
    alone_logit, alone_llr = model(SequencePair(*(tensor[2:3] for tensor in given)))
    torch.testing.assert_close(alone_logit, logit[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone_llr, llr[2:3], rtol=1e-4, atol=1e-4)
    assert logit.std() > 0.05


@torch.no_grad()
def test_order_of_strands_does_not_matter_but_order_of_alleles_does(any_model: VariantClassifier) -> None:
    model, given = any_model, pair(3, 2, 30)
    logit, llr = model(given)
    swapped_strands = SequencePair(*(tensor.flip(1) for tensor in given))
    torch.testing.assert_close(model(swapped_strands)[0], logit)
    other_logit, other_llr = model(SequencePair(*(tensor.flip(2) for tensor in given)))
    torch.testing.assert_close(other_llr, -llr)
    assert not torch.allclose(other_logit, logit)


def test_pair_llr_counts_no_n() -> None:
    ids = torch.tensor([alphabet.A, alphabet.N, alphabet.C], dtype=torch.uint8).repeat(1, 1, 2, 1)
    ids[0, 0, 1, 2] = alphabet.G
    logits = torch.zeros(2, 3, 16)
    logits[:, 1, alphabet.G] = 1.0
    llr = pair_llr(logits, SequencePair(ids, torch.full((1, 1, 2), 3), torch.zeros(1, 1, 2, 2, dtype=torch.long)))
    assert float(llr) == pytest.approx(1.0)


def test_probability_is_the_calibrated_logistic(model: VariantClassifier) -> None:
    model.slope.fill_(2.0)
    model.intercept.fill_(-1.0)
    assert torch.allclose(model.probability(torch.tensor([2.0])), torch.sigmoid(torch.tensor([3.0])))
    model.slope.fill_(1.0)
    model.intercept.fill_(0.0)
