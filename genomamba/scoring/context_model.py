"""An order-k context model: what counting alone predicts, the figure that a learned model must pass.

p(base | the k bases before it) = (count + α) / (total + 4 α), the estimator of Krichevsky and Trofimov for α = 1/2;
small α suits high orders, where most contexts are rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids

ALPHAS = (1.0, 1 / 4, 1 / 16)
MAX_ORDER = 12  # 4^13 counts of 4 bytes: 256 MiB
_BLOCK = 1 << 23  # bases at once


class ContextBits(NamedTuple):
    bases: int  # that were predicted: each base that has k bases before it in its piece, and no N among them
    bits: float  # summed over them


class ContextModel:
    """Counts of every (k + 1)-mer.

    Args:
        order: bases of context, k.
        alpha: added to every count.

    Raises:
        ValueError: the order is not in 0 … MAX_ORDER.
    """

    def __init__(self, order: int, alpha: float = 1 / 16) -> None:
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order {order} is not in 0 … {MAX_ORDER}")
        self.order, self.alpha = order, alpha
        self.counts = np.zeros((4**order, 4), dtype=np.uint32)

    def learn(self, ids: Ids, *, both_strands: bool = True) -> None:
        """Counts a piece of sequence, and its reverse complement."""
        for strand in (ids, alphabet.reverse_complement(ids)) if both_strands else (ids,):
            for words in self._blocks(strand):
                self._count(words)

    def bits(self, ids: Ids) -> ContextBits:
        """What a piece costs under the counts as they are."""
        return _sum(self._cost(self._totals(words), words) for words in self._blocks(ids))

    def adaptive_bits(self, ids: Ids) -> ContextBits:
        """What a piece costs when each base is counted, on its own strand, once it is coded. Changes the counts."""
        costs = []
        for words in self._blocks(ids):
            counts = self._totals(words)
            costs.append(self._cost((counts[0] + _earlier(words), counts[1] + _earlier(words >> 2)), words))
            self._count(words)
        return _sum(costs)

    def _blocks(self, ids: Ids) -> Iterator[NDArray[np.int64]]:
        for start in range(0, ids.size, _BLOCK):
            yield kmers(ids[start : start + _BLOCK + self.order], self.order + 1)

    def _count(self, words: NDArray[np.int64]) -> None:
        if words.size < self.counts.size // 16:  # few among many: no array of all of them
            values, counts = np.unique(words, return_counts=True)
            self.counts.reshape(-1)[values] += counts.astype(np.uint32)
        else:
            self.counts += np.bincount(words, minlength=self.counts.size).astype(np.uint32).reshape(self.counts.shape)

    def _totals(self, words: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts of each word, and of its context."""
        rows = self.counts[words >> 2].astype(np.int64)
        return np.take_along_axis(rows, (words & 3)[:, None], axis=1)[:, 0], rows.sum(axis=1)

    def _cost(self, counts: tuple[NDArray[np.int64], NDArray[np.int64]], words: NDArray[np.int64]) -> ContextBits:
        count, total = counts
        return ContextBits(words.size, float(-np.log2((count + self.alpha) / (total + 4 * self.alpha)).sum()))


def _sum(parts: Iterable[ContextBits]) -> ContextBits:
    bases, bits = 0, 0.0
    for part in parts:
        bases, bits = bases + part.bases, bits + part.bits
    return ContextBits(bases, bits)


def kmers(ids: Ids, k: int) -> NDArray[np.int64]:
    """Each k-mer of A, C, G, T alone, in order, as a number in base 4; k-mers with anything else are left out."""
    count = ids.size - k + 1
    if count <= 0:
        return np.zeros(0, np.int64)
    base = ids.astype(np.int64) - alphabet.A
    words = np.zeros(count, np.int64)
    for offset in range(k):
        words = (words << 2) | (base[offset : offset + count] & 3)
    good = np.concatenate([[0], np.cumsum((ids >= alphabet.A) & (ids <= alphabet.T))])
    return words[good[k:] - good[:-k] == k]


def _earlier(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value occurred before its place."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.searchsorted(ordered, ordered)  # where each run of equal values begins
    earlier = np.empty(values.size, np.int64)
    earlier[order] = np.arange(values.size) - first
    return earlier


def choose_context_model(
    training: Iterable[Ids], validation: Iterable[Ids], orders: Iterable[int] = range(1, MAX_ORDER + 1)
) -> tuple[ContextModel, float]:
    """The order and α that code the validation pieces best, counted on both strands of the training pieces.

    Args:
        training: pieces of sequence.
        validation: pieces that choose.
        orders: to try.

    Returns:
        the model, and its bits per base on the validation pieces.

    Raises:
        ValueError: the validation pieces have no base that any order can predict.
    """
    learnt, chosen = list(training), list(validation)
    best: tuple[ContextModel, float] | None = None
    for order in orders:
        model = ContextModel(order)
        for ids in learnt:
            model.learn(ids)
        for alpha in ALPHAS:
            model.alpha = alpha
            found = [model.bits(ids) for ids in chosen]
            bases = sum(each.bases for each in found)
            figure = sum(each.bits for each in found) / bases if bases else float("inf")
            if best is None or figure < best[1]:
                best = (model, figure)
                best_alpha = alpha
        if best is not None and best[0] is model:
            model.alpha = best_alpha
    if best is None or best[1] == float("inf"):
        raise ValueError("there is nothing to choose the order on")
    return best
