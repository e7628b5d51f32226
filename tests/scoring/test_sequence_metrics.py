"""Figures of classifiers and regressions, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from genomamba.scoring import metrics
from genomamba.scoring.metrics import Figure, bootstrap
from genomamba.scoring.sequence_metrics import classification_figures, per_stratum, regression_figures


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BOOTSTRAPS", 20)


def test_two_classes_by_hand() -> None:
    truth = np.array([0, 0, 1, 1] * 3)
    positive = np.array([0.1, 0.4, 0.35, 0.8] * 3)
    called = (positive >= 0.375).astype(int)
    found = classification_figures(truth, np.stack([1 - positive, positive], 1), called)
    values = {name: figure.value for name, figure in found.items()}
    assert values["AUROC"] == 0.75
    assert values["accuracy"] == values["F1"] == 0.5
    assert values["MCC"] == 0.0
    assert values["Brier"] == pytest.approx(brier_score_loss(truth, positive))
    assert all(figure.low <= figure.value <= figure.high for figure in found.values() if figure.low is not None)


def test_three_classes_by_hand() -> None:
    truth = np.array([0, 1, 2] * 5)
    sure = np.eye(3)[truth] * 0.7 + 0.1
    found = classification_figures(truth, sure, sure.argmax(1))
    for name in ("MCC", "AUROC", "AUPRC", "accuracy", "F1"):
        assert found[name] == Figure(1.0, 1.0, 1.0), name
    assert found["Brier"].value == pytest.approx((0.2**2 + 2 * 0.1**2) / 2)
    assert found["ECE"].value == pytest.approx(0.2)  # it is right always and says 0.8


def test_a_class_that_is_missing_leaves_na_and_what_needs_none_stays() -> None:
    truth = np.array([0, 1] * 5)
    found = classification_figures(truth, np.full((10, 3), 1 / 3), np.zeros(10, int))
    assert [name for name, figure in found.items() if figure.value is None] == ["MCC", "AUROC", "AUPRC", "F1"]
    assert found["accuracy"].value == 0.5


def test_regression_by_hand() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = regression_figures(truth, 2 * truth)
    assert found["Pearson"].value == pytest.approx(1)
    assert found["Spearman"].value == pytest.approx(1)
    assert found["MAE"].value == pytest.approx(3)
    assert found["RMSE"].value == pytest.approx(np.sqrt(11))
    assert found["R2"].value == pytest.approx(1 - 55 / 10)
    constant = regression_figures(truth, np.ones(5))
    assert constant["Pearson"].value is None
    assert constant["MAE"].value == pytest.approx(2)


def test_strata_come_by_size_and_say_how_many() -> None:
    def of(rows: np.ndarray) -> dict[str, Figure]:
        return {"sum": Figure(float(rows.sum()))}

    found = per_stratum({"gene": ["b", "a", "b"]}, of)
    assert found == {
        "gene": [
            {"stratum": "b", "sequences": 2, "sum": Figure(2.0)},
            {"stratum": "a", "sequences": 1, "sum": Figure(1.0)},
        ]
    }


def test_too_few_of_a_class_have_no_interval() -> None:
    labels = np.array([0] * 4 + [1] * 20)
    assert bootstrap(lambda rows: 1.0, labels, 24) == Figure(1.0)
    assert bootstrap(lambda rows: 1.0, None, 24) == Figure(1.0, 1.0, 1.0)
