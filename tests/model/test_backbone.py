"""The language model: against the original's logits, causal to the bit, and whole = segments."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, base_log_probability
from genomamba.model.config import ModelConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "mamba1.safetensors"
SMALL = ModelConfig(d_model=16, n_layer=2, d_state=4)


@pytest.fixture(scope="module")
def model() -> CausalLM:
    torch.manual_seed(1)
    return CausalLM(SMALL).eval()


def bases(*shape: int) -> torch.Tensor:
    return torch.randint(alphabet.A, alphabet.N + 1, shape, dtype=torch.uint8)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_logits_equal_the_originals(impl: str) -> None:
    tensors = safetensors.torch.load_file(GOLDEN)
    ids, logits = tensors.pop("__ids"), tensors.pop("__logits")
    model = CausalLM(ModelConfig(d_model=32, n_layer=2, vocab_size=16), impl=impl)  # type: ignore[arg-type]
    model.load_state_dict(tensors)
    with torch.no_grad():
        assert (model(ids) - logits).abs().max() < 1e-5


@pytest.mark.parametrize("t", [0, 1, 17, 63, 64, 99])
def test_a_changed_base_leaves_every_output_before_it_equal_to_the_bit(model: CausalLM, t: int) -> None:
    ids = bases(2, 100)
    changed = ids.clone()
    changed[:, t] = torch.where(ids[:, t] == alphabet.A, alphabet.C, alphabet.A)
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.equal(before[:, t:], after[:, t:])


@settings(max_examples=12, deadline=None)
@given(length=st.integers(1, 80), data=st.data())
def test_segments_with_carried_states_equal_the_whole(model: CausalLM, length: int, data: st.DataObject) -> None:
    ids = bases(2, length)
    cuts = sorted(data.draw(st.sets(st.integers(1, length), max_size=4)) | {length})
    with torch.no_grad():
        whole, last = model.backbone(ids)
        pieces, state = [], None
        for start, end in zip([0, *cuts], cuts, strict=False):
            piece, state = model.backbone(ids[:, start:end], state)
            pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)
    assert state is not None
    for mine, theirs in zip(state, last, strict=True):
        torch.testing.assert_close(mine.scan, theirs.scan, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.conv, theirs.conv, rtol=1e-4, atol=1e-5)


def test_packing_with_resets_equals_separate_sequences(model: CausalLM) -> None:
    first, second = bases(1, 23), bases(1, 41)
    reset = torch.zeros(1, 64, dtype=torch.bool)
    reset[0, 0] = reset[0, 23] = True
    with torch.no_grad():
        packed = model(torch.cat([first, second], 1), reset)
        apart = torch.cat([model(first), model(second)], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-5)


def test_right_padding_and_batch_neighbours_change_nothing(model: CausalLM) -> None:
    ids = bases(1, 50)
    padded = torch.cat([ids, torch.full((1, 30), alphabet.PAD, dtype=torch.uint8)], 1)
    with torch.no_grad():
        alone = model(ids)
        among = model(torch.cat([bases(1, 80), padded, bases(2, 80)]))[1:2, :50]
    torch.testing.assert_close(among, alone, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients(model: CausalLM) -> None:
    ids = bases(2, 40)

    def gradients() -> list[torch.Tensor]:
        loss = -model.log_likelihood(ids).mean()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = gradients()
    model.backbone.activation_checkpointing = True
    try:
        recomputed = gradients()
    finally:
        model.backbone.activation_checkpointing = False
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.equal(a, b)


def test_activation_checkpointing_of_a_narrow_model() -> None:
    """Without autocast: the stream is fp32, what a block reads and gives is not."""
    narrow = CausalLM(ModelConfig(d_model=16, n_layer=3)).to(torch.bfloat16)
    ids, found = bases(2, 20), []
    for again in (False, True):
        narrow.backbone.activation_checkpointing = again
        found.append(torch.autograd.grad(narrow(ids).float().square().mean(), list(narrow.parameters())))
    for a, b in zip(*found, strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b)


def test_initialisation_is_the_papers() -> None:
    torch.manual_seed(0)
    config = ModelConfig(d_model=64, n_layer=9, d_state=8)
    mixer = CausalLM(config).backbone.layers[0].mixer
    step = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert step.min() >= config.dt_min * 0.999
    assert step.max() <= config.dt_max * 1.001
    # log-uniform: the mean of the logarithm is the middle of its range
    assert abs(step.log().mean() - math.log(0.01)) < 0.35
    assert torch.allclose(-torch.exp(mixer.A_log)[3], -torch.arange(1.0, 9.0))
    assert torch.equal(mixer.D, torch.ones(128))
    bound = (1 / math.sqrt(config.d_inner)) / math.sqrt(config.n_layer)  # kaiming-uniform with a = √5, over √n_layer
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound


def test_base_probabilities_sum_to_one_over_acgt_and_ignore_the_rest() -> None:
    logits = torch.randn(16)
    every = base_log_probability(logits.expand(4, 16), torch.arange(alphabet.A, alphabet.T + 1))
    assert every.exp().sum() == pytest.approx(1)
    assert base_log_probability(logits.expand(2, 16), torch.tensor([alphabet.N, alphabet.PAD])).tolist() == [0, 0]
