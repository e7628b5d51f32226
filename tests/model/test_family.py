"""Laws that every mixer obeys: step = scan = stream, packing, padding, neighbours, and both directions."""

from __future__ import annotations

import pytest
import torch
from family_cases import ALL, BOTH_STRANDS, BOTH_WAYS, CAUSAL, bases, build, close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genomamba.errors import ConfigError
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig, layer_names
from genomamba.model.recurrence import prefill, step, stream


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("size", [1, 7, 64, 150])
@torch.no_grad()
def test_streams_in_chunks_of_any_size_equal_the_whole(name: str, size: int) -> None:
    model = build(CAUSAL[name])
    assert isinstance(model, CausalLM)
    ids = bases(2, 150)
    torch.testing.assert_close(torch.cat(list(stream(model, ids.split(size, 1))), 1), model(ids), rtol=1e-4, atol=2e-5)
    state, last = None, model.backbone(ids)[1]
    for chunk in ids.split(size, 1):
        _, state = model.backbone(chunk, state)
    close(state, last)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_streams_in_large_chunks_equal_the_whole(name: str) -> None:
    model, ids = build(CAUSAL[name]), bases(1, 4200)
    assert isinstance(model, CausalLM)
    whole = model(ids)
    for cuts in ([4096, 104], [1, 4096, 103]):
        pieces = torch.cat(list(stream(model, ids.split(cuts, 1))), 1)
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_steps_equal_the_scan(name: str) -> None:
    model = build(CAUSAL[name])
    assert isinstance(model, CausalLM)
    ids = bases(2, 40)
    at = prefill(model, ids[:, :11])
    for t in range(11, 40):
        at = step(model, ids[:, t], at.state)
    whole, last = model.backbone(ids)
    close(at.state, last)
    torch.testing.assert_close(at.logits, model.lm_head(whole[:, -1]), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", CAUSAL)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_segments_of_packed_sequences_equal_the_whole(name: str, data: st.DataObject) -> None:
    model = build(CAUSAL[name])
    length = data.draw(st.integers(2, 60))
    reset = torch.zeros(2, length, dtype=torch.bool)
    for row in range(2):
        reset[row, sorted(data.draw(st.sets(st.integers(0, length - 1), max_size=3)))] = True
    cuts = sorted(data.draw(st.sets(st.integers(1, length), max_size=3)) | {length})
    ids = bases(2, length)
    with torch.no_grad():
        whole, last = model.backbone(ids, reset=reset)
        pieces, state = [], None
        for start, end in zip([0, *cuts], cuts, strict=False):
            piece, state = model.backbone(ids[:, start:end], state, reset[:, start:end])
            pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=2e-5)
    if "attention" not in CAUSAL[name].get("layers", ""):  # its caches may keep keys that nobody can see any more
        close(state, last)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_changed_base_leaves_what_stands_before_it(name: str) -> None:
    model, ids = build(CAUSAL[name]), bases(1, 70)
    changed = ids.clone()
    changed[0, 33] = alphabet.A if ids[0, 33] != alphabet.A else alphabet.C
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :33], after[:, :33], rtol=1e-5, atol=1e-5)
    assert (before - after)[:, 33:].abs().amax(-1).max() > 1e-3


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_packing_equals_separate_sequences(name: str) -> None:
    model, first, second = build(ALL[name]), bases(1, 23), bases(1, 38)
    reset = torch.zeros(1, 61, dtype=torch.bool)
    reset[0, 23] = True
    packed = model(torch.cat([first, second], 1), reset)
    torch.testing.assert_close(packed, torch.cat([model(first), model(second)], 1), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_right_padding_and_batch_neighbours_change_nothing(name: str) -> None:
    model, ids = build(ALL[name]), bases(1, 31)
    padded = torch.cat([ids, torch.full((1, 16), alphabet.PAD, dtype=torch.uint8)], 1)
    batch = torch.cat([bases(1, 47), padded, bases(1, 47)])
    among = model(batch, length=torch.tensor([47, 31, 40]))[1:2, :31]
    torch.testing.assert_close(among, model(ids), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", BOTH_WAYS)
@torch.no_grad()
def test_both_directions_are_read(name: str) -> None:
    model, ids = build(BOTH_WAYS[name]), bases(1, 9)
    changed = ids.clone()
    changed[0, 4] = alphabet.A if ids[0, 4] != alphabet.A else alphabet.C
    moved = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert moved[3] > 1e-5
    assert moved[5] > 1e-5


@pytest.mark.parametrize("name", BOTH_STRANDS)
@pytest.mark.parametrize("length", [1, 33, 64])
@torch.no_grad()
def test_equivariance_is_exact_to_the_bit(name: str, length: int) -> None:
    model, ids = build(BOTH_STRANDS[name]), bases(3, length)
    complement = torch.from_numpy(alphabet.COMPLEMENT[:16].copy()).long()
    other = torch.from_numpy(alphabet.reverse_complement(ids.numpy()).copy())
    logits = model(ids)
    assert torch.equal(model(other), logits.flip(1)[..., complement])
    assert logits.std() > 0.05
    hidden, hidden_other = model.backbone(ids)[0], model.backbone(other)[0]
    assert torch.equal(torch.cat(hidden.chunk(2, -1)[::-1], -1).flip(1), hidden_other)
    torch.testing.assert_close(model.lm_head(hidden), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba add", *BOTH_STRANDS][1:6])
def test_gradients_of_both_strands_are_finite_and_checkpointing_keeps_them(name: str) -> None:
    model, ids = build(BOTH_STRANDS[name]), bases(2, 20)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(ids).square().mean(), list(model.parameters()))

    plain = gradients()
    model.backbone.activation_checkpointing = True
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b)


def test_patterns_name_each_blocks_mixer() -> None:
    assert layer_names("mamba*2 attention", 6) == ("mamba", "mamba", "attention") * 2
    assert ModelConfig(n_layer=2, layers="gru mamba").mixers == ("gru", "mamba")
    for pattern, n_layer, words in [
        ("mamba*7 attention", 4, "a pattern of 8 does not fill 4 layers"),
        ("mamba transformer", 2, "not understood at transformer"),
        ("mamba*0", 2, r"not understood at mamba\*0"),
        ("", 2, "a pattern of 0"),
    ]:
        with pytest.raises(ConfigError, match=words):
            ModelConfig(n_layer=n_layer, layers=pattern)


def test_a_causal_language_model_cannot_look_ahead() -> None:
    with pytest.raises(ConfigError, match="cannot look ahead"):
        CausalLM(ModelConfig(bidirectional=True))


def test_stochastic_depth_drops_rows_in_training_only() -> None:
    model, ids = build({"drop_path": 0.5, "n_layer": 1}), bases(1, 12).expand(64, 12)
    with torch.no_grad():
        steady = model(ids)
        assert torch.equal(steady[0], steady[1])
        model.train()
        rows = {tuple(row.flatten().tolist()) for row in model(ids)}
    assert len(rows) == 2  # the branch is there, doubled, or it is not
