"""Generation: distributions, seeds, stops, batches, and a state that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.recurrence import generate, prefill, read_on, rows_of, step, stream
from genomamba.model.sampling import Sampling, draw


@pytest.fixture(scope="module")
def model() -> CausalLM:
    torch.manual_seed(4)
    model = CausalLM(ModelConfig(d_model=16, n_layer=2, d_state=4, layers="mamba mamba2", headdim=8))
    with torch.no_grad():
        model.backbone.embedding.weight.mul_(20)
    return model.eval()


def bases(*shape: int) -> Tensor:
    return torch.randint(alphabet.A, alphabet.T + 1, shape)


def frequencies(sampling: Sampling, logits: Tensor, draws: int = 20_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens = draw(logits.expand(draws, -1), sampling, generator)
    return torch.bincount(tokens, minlength=16).float() / draws


def test_draws_follow_the_distribution_over_bases() -> None:
    logits = torch.full((1, 16), 9.0)  # of tokens that may not be drawn
    probability = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits[0, 7:11] = probability.log()
    assert frequencies(Sampling(), logits)[7:11].sub(probability).abs().max() < 0.015
    half = probability.sqrt() / probability.sqrt().sum()
    assert frequencies(Sampling(temperature=2.0), logits)[7:11].sub(half).abs().max() < 0.015
    assert frequencies(Sampling(top_k=2), logits)[7:11].sub(torch.tensor([0.625, 0.375, 0, 0])).abs().max() < 0.015
    assert frequencies(Sampling(top_p=0.5), logits)[7] == 1
    three = torch.tensor([0.5, 0.3, 0.15, 0]) / 0.95
    assert frequencies(Sampling(top_p=0.81), logits)[7:11].sub(three).abs().max() < 0.015
    assert frequencies(Sampling(temperature=0), logits)[7] == 1


def test_greedy_generation_takes_what_the_whole_sequence_would(model: CausalLM) -> None:
    prompt = bases(3, 9)
    added = generate(model, prompt, 20, Sampling(temperature=0))
    assert len(added.unique()) > 1
    with torch.no_grad():
        logits = model(torch.cat([prompt, added], 1))[:, 8:-1, alphabet.A : alphabet.T + 1]
    assert torch.equal(logits.argmax(-1) + alphabet.A, added)


def test_a_seed_fixes_the_tokens_and_rows_differ(model: CausalLM) -> None:
    prompt = bases(1, 9).expand(4, 9)
    first = generate(model, prompt, 30, seed=1)
    assert torch.equal(first, generate(model, prompt, 30, seed=1))
    assert not torch.equal(first, generate(model, prompt, 30, seed=2))
    assert len({tuple(row.tolist()) for row in first}) == 4


def test_rows_end_at_a_stop_and_are_padded(model: CausalLM) -> None:
    prompt, stop = bases(6, 5), [[alphabet.A, alphabet.C], [alphabet.T, alphabet.T, alphabet.T]]
    free = generate(model, prompt, 200, Sampling(temperature=20), seed=3)
    held = generate(model, prompt, 200, Sampling(temperature=20), seed=3, stop=stop)
    ended = 0
    for row, without in zip(held.tolist(), free.tolist(), strict=True):
        kept = [token for token in row if token != alphabet.PAD]
        assert row == kept + [alphabet.PAD] * (len(row) - len(kept))
        assert kept == without[: len(kept)]  # other rows' ends change nothing
        ends = [i for i in range(len(kept)) for word in stop if kept[: i + 1][-len(word) :] == word]
        assert ends in ([], [len(kept) - 1])
        ended += bool(ends)
    assert ended == 6
    assert held.shape[1] < 200


def test_what_makes_no_sense_is_refused(model: CausalLM) -> None:
    for sampling in (Sampling(temperature=-1), Sampling(top_p=0), Sampling(top_k=0)):
        with pytest.raises(ValueError, match="temperature"):
            generate(model, bases(1, 3), 2, sampling)
    with pytest.raises(ValueError, match="prompt is empty"):
        generate(model, bases(1, 0), 2)
    assert generate(model, bases(2, 3), 0).shape == (2, 0)


def test_nothing_keeps_a_graph(model: CausalLM) -> None:
    ids = bases(1, 12)
    at = step(model, ids[:, 0], prefill(model, ids).state)
    assert not at.logits.requires_grad
    assert not any(chunk.requires_grad for chunk in stream(model, ids.split(5, 1)))
    assert torch.is_grad_enabled()
    assert torch.cat(list(stream(model, generate(model, ids, 7).split(3, 1))), 1).shape[1] == 7


def sizes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.untyped_storage().nbytes()
    return sum(map(sizes, state)) if isinstance(state, (tuple, list)) else 0


@pytest.mark.parametrize("layers", ["mamba", "mamba2", "s4d", "gru", "attention"])
@torch.no_grad()
def test_the_state_does_not_grow(layers: str) -> None:
    config = ModelConfig(d_model=16, n_layer=1, d_state=4, layers=layers, headdim=8, window=6)
    model = CausalLM(config).eval()
    at = prefill(model, bases(1, 50))
    at = step(model, bases(1), at.state)
    held = sizes(at.state)
    for _ in range(20):
        at = step(model, bases(1), at.state)
    assert sizes(at.state) == held


@pytest.mark.parametrize("cut", [1, 2, 13])
@pytest.mark.parametrize("layers", ["mamba mamba2", "s4d gru", "attention mamba"])
def test_one_prefix_gone_on_from_in_several_ways(layers: str, cut: int) -> None:
    model = CausalLM(ModelConfig(d_model=16, n_layer=2, d_state=4, layers=layers, headdim=8, window=5)).eval()
    prefixes, suffixes = bases(2, cut), bases(3, 14)
    index = torch.tensor([1, 0, 1])
    reading = read_on(model, prefixes)
    both = torch.cat([prefixes[index], suffixes], 1)
    whole = read_on(model, both)
    with torch.no_grad():
        assert torch.equal(whole.log_p[:, 1:], model.log_likelihood(both))
        assert not whole.log_p[:, 0].any()
    after = read_on(model, suffixes, rows_of(reading.after, index))
    torch.testing.assert_close(torch.cat([reading.log_p[index], after.log_p], 1), whole.log_p, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([reading.hidden[index], after.hidden], 1), whole.hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.after.logits, prefill(model, both).logits, rtol=1e-5, atol=1e-5)
