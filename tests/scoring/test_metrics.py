"""Figures against values worked out by hand, and NA where there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from genomamba.scoring import metrics
from genomamba.scoring.metrics import (
    Figure,
    auprc,
    auroc,
    consequence_only,
    consequence_shares,
    expected_calibration_error,
    summary,
)


def test_auroc_counts_pairs_in_order() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert auroc(labels, scores) == Figure(0.75, None, None)  # 3 of the 4 pairs are in order; too few to resample
    figure = auroc(np.tile(labels, 3), np.tile(scores, 3))
    assert figure.value == 0.75
    assert figure.low is not None
    assert figure.low < 0.75 < figure.high


def test_one_class_has_no_figure() -> None:
    labels, scores = np.ones(5, int), np.linspace(0, 1, 5)
    assert auroc(labels, scores) == auprc(labels, scores) == Figure(None, None, None)
    assert str(auroc(labels, scores)) == "NA"


def test_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BOOTSTRAPS", 100)
    random = np.random.default_rng(0)
    truth, hits = 0.7602, 0  # Φ(1/√2): scores N(0, 1) and N(1, 1)
    for _ in range(40):
        labels = np.repeat([0, 1], 60)
        figure = auroc(labels, random.normal(labels, 1.0))
        hits += figure.low < truth < figure.high
    assert 34 <= hits <= 40


def test_calibration_error_of_known_bins() -> None:
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([0.25, 0.25, 0.95, 0.95])
    # bin .2-.3: mean .25, share .5; bin .9-1: mean .95, share 1
    assert expected_calibration_error(labels, probabilities) == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)
    assert expected_calibration_error(labels, labels.astype(float)) == 0


def test_summary_of_a_perfect_classifier() -> None:
    labels = np.array([0, 1] * 20)
    figures = summary(labels, np.where(labels == 1, 0.99, 0.01), 0.5)
    assert figures["AUROC"].value == figures["AUPRC"].value == figures["MCC"].value == 1
    assert figures["Brier"].value == pytest.approx(1e-4)


class Item(NamedTuple):
    consequence: str
    label: int


def test_baseline_knows_shares_and_nothing_else() -> None:
    shares = consequence_shares([Item("nonsense", 1)] * 3 + [Item("synonymous", 0)])
    assert consequence_only(shares, ["nonsense", "synonymous", "unseen"]) == pytest.approx([3.75 / 4, 0.375, 0.75])
