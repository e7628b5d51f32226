"""Windows of a model that looks both ways, and both strands averaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.windows import conjoined, stream_windows, window_spans


@pytest.fixture(scope="module")
def model() -> MaskedLM:
    torch.manual_seed(6)
    # Attention within 3 tokens on either side, in two layers: nothing further than 4 away matters.
    config = ModelConfig(d_model=16, n_layer=2, layers="attention", headdim=8, window=3, bidirectional=True)
    return MaskedLM(config).eval()


def bases(*shape: int) -> Tensor:
    return torch.randint(alphabet.A, alphabet.N + 1, shape)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 90), window=st.integers(9, 40), extra=st.integers(0, 7))
def test_windows_with_an_overlap_that_suffices_equal_the_whole(
    model: MaskedLM, length: int, window: int, extra: int
) -> None:
    ids, overlap = bases(2, length), min(8 + extra, window - 1)
    with torch.no_grad():
        whole = model(ids)
        parts = list(stream_windows(model, ids, window=window, overlap=overlap))
    assert [part.start for part in parts] == [0, *torch.tensor([p.logits.shape[1] for p in parts]).cumsum(0)[:-1]]
    torch.testing.assert_close(torch.cat([part.logits for part in parts], 1), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_overlap_too_small_shows_at_the_seams(model: MaskedLM) -> None:
    ids = bases(1, 60)
    streamed = torch.cat([part.logits for part in stream_windows(model, ids, window=20, overlap=0)], 1)
    difference = (streamed - model(ids)).abs().amax(-1)[0]
    assert difference[19] > 1e-4
    assert difference[10] < 1e-5
    with pytest.raises(ValueError, match="overlap=20"):
        list(stream_windows(model, ids, window=20, overlap=20))


@torch.no_grad()
def test_conjoined_logits_are_equivariant_and_the_mean_of_both(model: MaskedLM) -> None:
    ids = bases(2, 15)
    other = torch.from_numpy(alphabet.reverse_complement(ids.numpy()).copy()).long()
    complement = torch.from_numpy(alphabet.COMPLEMENT[:16].copy()).long()
    both = conjoined(model, ids)
    assert torch.equal(conjoined(model, other), both.flip(1)[..., complement])
    torch.testing.assert_close(both, (model(ids) + model(other).flip(1)[..., complement]) / 2)
    padded = torch.cat([ids, torch.full((2, 5), alphabet.PAD)], 1)
    among = conjoined(model, padded, torch.tensor([15, 15]))[:, :15]
    torch.testing.assert_close(among, both, rtol=1e-4, atol=1e-5)


@given(length=st.integers(0, 60), window=st.integers(1, 20), data=st.data())
def test_kept_parts_lie_side_by_side_in_windows_that_see_enough(length: int, window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    spans = list(window_spans(length, window=window, overlap=overlap))
    assert [at for span in spans for at in range(span.first, span.last)] == list(range(length))
    for start, end, first, last in spans:
        assert 0 <= start <= first < last <= end <= length
        assert end - start == min(window, length)
        assert first - start >= min(first, overlap // 2)
        assert end - last >= min(length - last, overlap // 2)
