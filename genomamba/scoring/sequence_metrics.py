"""Figures of a classifier or a regression of sequences, with bootstrap intervals; NA where a figure is not defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    r2_score,
    roc_auc_score,
)

from genomamba.scoring.metrics import Figure, bootstrap, expected_calibration_error

Rows = NDArray[np.intp]


def classification_figures(truth: NDArray, probabilities: NDArray, called: NDArray) -> dict[str, Figure]:
    """MCC, AUROC, AUPRC, accuracy, F1, Brier score, ECE.

    With more than two classes AUROC, AUPRC and F1 are means over the classes, one against the rest; the Brier score
    is the squared distance summed over classes, halved so that it is the usual one for two (Brier 1950 has no half);
    ECE is that of the class that is called likeliest.

    Args:
        truth: class of each sequence, (N,), below C.
        probabilities: (N, C).
        called: the class that the model calls, (N,).

    Returns:
        NA for AUROC, AUPRC and MCC where a class is missing among ``truth``.
    """
    classes = probabilities.shape[1]
    whole = np.unique(truth).size == classes
    wrong = ((probabilities - np.eye(classes)[truth]) ** 2).sum(1) / 2
    if classes == 2:
        confidence, right = probabilities[:, 1], truth == 1
        ranked: NDArray = probabilities[:, 1]
        average: dict[str, str] = {}
    else:
        confidence, right = probabilities.max(1), truth == probabilities.argmax(1)
        ranked, average = probabilities, {"average": "macro", "multi_class": "ovr"}
    f1 = {"average": "binary"} if classes == 2 else {"average": "macro"}

    def auprc(rows: Rows) -> float:
        target = truth[rows] if classes == 2 else np.eye(classes)[truth[rows]]
        return float(average_precision_score(target, ranked[rows]))

    statistics: dict[str, tuple[Callable[[Rows], float], bool]] = {
        "MCC": (lambda rows: matthews_corrcoef(truth[rows], called[rows]), True),
        "AUROC": (lambda rows: roc_auc_score(truth[rows], ranked[rows], **average), True),
        "AUPRC": (auprc, True),
        "accuracy": (lambda rows: accuracy_score(truth[rows], called[rows]), False),
        "F1": (lambda rows: f1_score(truth[rows], called[rows], zero_division=0, **f1), True),
        "Brier": (lambda rows: float(wrong[rows].mean()), False),
        "ECE": (lambda rows: expected_calibration_error(right[rows], confidence[rows]), False),
    }
    return {
        name: bootstrap(statistic, truth if needs_classes else None, len(truth))
        if whole or not needs_classes
        else Figure(None)
        for name, (statistic, needs_classes) in statistics.items()
    }


def regression_figures(truth: NDArray, values: NDArray) -> dict[str, Figure]:
    """Pearson's and Spearman's correlation, R², root mean squared and mean absolute error; NA for constant values."""

    def pearson(rows: Rows) -> float:
        return float(np.corrcoef(truth[rows], values[rows])[0, 1])

    def spearman(rows: Rows) -> float:
        return float(spearmanr(truth[rows], values[rows]).statistic)

    spread = np.ptp(truth) > 0 and len(truth) > 2
    varies = spread and np.ptp(values) > 0
    error = values - truth
    figures = {
        "Pearson": bootstrap(pearson, None, len(truth)) if varies else Figure(None),
        "Spearman": bootstrap(spearman, None, len(truth)) if varies else Figure(None),
        "R2": bootstrap(lambda rows: r2_score(truth[rows], values[rows]), None, len(truth)) if spread else Figure(None),
        "RMSE": bootstrap(lambda rows: float(np.sqrt((error[rows] ** 2).mean())), None, len(truth)),
        "MAE": bootstrap(lambda rows: float(np.abs(error[rows]).mean()), None, len(truth)),
    }
    return figures


def per_stratum(
    strata: Mapping[str, Sequence[str]], figures: Callable[[Rows], dict[str, Figure]]
) -> dict[str, list[dict[str, Any]]]:
    """The figures within each value of each column, the largest stratum first.

    Args:
        strata: column → value of each row.
        figures: of the given rows.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for column, values in strata.items():
        own = np.asarray(values)
        names, counts = np.unique(own, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found[column] = [
            {"stratum": str(names[i]), "sequences": int(counts[i]), **figures(np.flatnonzero(own == names[i]))}
            for i in order
        ]
    return found
