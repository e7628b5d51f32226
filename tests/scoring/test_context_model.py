"""The order-k context model against counting by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.genome import alphabet
from genomamba.scoring import context_model
from genomamba.scoring.context_model import ALPHAS, ContextModel, choose_context_model

SEQUENCE = st.text("ACGTN", max_size=60)


def encode(text: str) -> np.ndarray:
    return alphabet.encode(text.encode())


def by_hand(train: list[str], text: str, order: int, alpha: float, *, adaptive: bool) -> tuple[int, float]:
    counts: Counter[str] = Counter()
    for sequence in train:
        reverse = sequence.translate(str.maketrans("ACGT", "TGCA"))[::-1]
        for strand in (sequence, reverse):
            counts.update(strand[i : i + order + 1] for i in range(len(strand) - order))
    bases, bits = 0, 0.0
    for i in range(order, len(text)):
        word = text[i - order : i + 1]
        if "N" in word:
            continue
        total = sum(counts[word[:-1] + base] for base in "ACGT")
        bits -= math.log2((counts[word] + alpha) / (total + 4 * alpha))
        bases += 1
        counts[word] += adaptive
    return bases, bits


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context_model, "_BLOCK", 7)
        yield


@settings(max_examples=60, deadline=None)
@given(train=st.lists(SEQUENCE, max_size=3), text=SEQUENCE, order=st.integers(0, 4), alpha=st.sampled_from([1.0, 0.1]))
def test_frozen_and_adaptive_counts_are_exact(train: list[str], text: str, order: int, alpha: float) -> None:
    model = ContextModel(order, alpha)
    for sequence in train:
        model.learn(encode(sequence))
    for adaptive in (False, True):
        bases, bits = by_hand(train, text, order, alpha, adaptive=adaptive)
        found = (model.adaptive_bits if adaptive else model.bits)(encode(text))
        assert found.bases == bases
        assert found.bits == pytest.approx(bits, abs=1e-9)


def test_probabilities_of_a_context_sum_to_one() -> None:
    model = ContextModel(2, 0.25)
    model.learn(encode("ACGTTGCAAGCTNNAC"))
    total = sum(2 ** -model.bits(encode("AC" + base)).bits for base in "ACGT")
    assert total == pytest.approx(1)


def test_the_order_that_made_the_sequence_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_model, "_BLOCK", 9_000)
    random = np.random.default_rng(0)
    table = random.dirichlet([0.3] * 4, 4**3)
    ids = [0, 1, 2]
    for draw in random.random(60_000):
        context = ids[-3] * 16 + ids[-2] * 4 + ids[-1]
        ids.append(int(min(3, np.searchsorted(np.cumsum(table[context]), draw))))
    made = (np.array(ids) + alphabet.A).astype(np.uint8)
    train, valid = made[:40_000], made[40_000:]
    chosen, figure = choose_context_model([train], [valid], orders=range(1, 9))
    figures = {}
    for order in range(1, 9):
        model = ContextModel(order)
        model.learn(train)
        for model.alpha in ALPHAS:
            found = model.bits(valid)
            figures[order, model.alpha] = found.bits / found.bases
    assert figure == min(figures.values()) == figures[chosen.order, chosen.alpha]
    assert chosen.order >= 3
    assert chosen.bits(valid).bits / chosen.bits(valid).bases == figure


def test_orders_out_of_range_and_nothing_to_choose_on_are_refused() -> None:
    with pytest.raises(ValueError, match="order 13"):
        ContextModel(13)
    with pytest.raises(ValueError, match="nothing to choose"):
        choose_context_model([encode("ACGT")], [encode("NNNN")], orders=[1, 2])
