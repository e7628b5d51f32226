"""Every figure of a variant classifier on held-out variants, beside what the consequence class alone tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from genomamba.scoring.metrics import auprc, auroc, consequence_only, reliability, summary
from genomamba.scoring.variants import VariantScore

CURVE_POINTS = 400  # more do not show


def evaluate(
    labels: Sequence[int],
    consequences: Sequence[str],
    scores: Sequence[VariantScore],
    *,
    threshold: float,
    shares: Mapping[str, float],
    strata: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """All figures as JSON can hold them; a figure is [value, low, high], None where it is not defined.

    Args:
        labels: 0 or 1 of each held-out variant.
        consequences: its class.
        scores: of a classifier.
        threshold: probability from which a variant is called positive, chosen on the validation split.
        shares: of positives per consequence class in training, from `consequence_shares`.
        strata: other columns, and what stands in them for each variant.
    """
    truth = np.array(labels)
    probability = np.array([score.probability for score in scores])
    zero_shot = -np.array([score.llr for score in scores])
    baseline = consequence_only(shares, consequences)

    def within(values: Sequence[str]) -> list[dict[str, Any]]:
        return _within(values, truth, probability, zero_shot, threshold)

    return {
        "variants": len(truth),
        "positives": int(truth.sum()),
        "threshold": threshold,
        "overall": summary(truth, probability, threshold),
        "zero_shot": {"AUROC": auroc(truth, zero_shot), "AUPRC": auprc(truth, zero_shot)},
        "consequence_only": {"AUROC": auroc(truth, baseline), "AUPRC": auprc(truth, baseline)},
        "within": within(consequences),
        "strata": {column: within(values) for column, values in (strata or {}).items()},
        "curves": {
            "model": _curves(truth, probability),
            "consequence_only": _curves(truth, baseline),
            "reliability": reliability(truth, probability),
        },
    }


def _within(
    values: Sequence[str], truth: NDArray, probability: NDArray, zero_shot: NDArray, threshold: float
) -> list[dict[str, Any]]:
    """Figures of the variants with each value, the most frequent first."""
    found, column = [], np.array(values)
    for stratum, size in Counter(values).most_common():
        own = column == stratum
        found.append(
            {
                "stratum": stratum,
                "variants": size,
                "positives": int(truth[own].sum()),
                **summary(truth[own], probability[own], threshold),
                "zero_shot_AUROC": auroc(truth[own], zero_shot[own]),
                "zero_shot_AUPRC": auprc(truth[own], zero_shot[own]),
            }
        )
    return found


def _curves(labels: NDArray, scores: NDArray) -> dict[str, list[list[float]]]:
    false_positive, true_positive, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {"roc": [_thin(false_positive), _thin(true_positive)], "pr": [_thin(recall), _thin(precision)]}


def _thin(values: NDArray) -> list[float]:
    keep = np.unique(np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(int))
    return [round(float(value), 5) for value in values[keep]]
