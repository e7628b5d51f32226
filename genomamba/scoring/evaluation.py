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
) -> dict[str, Any]:
    """All figures as JSON can hold them; a figure is [value, low, high], None where it is not defined.

    Args:
        labels: 0 or 1 of each held-out variant.
        consequences: its class.
        scores: of a classifier.
        threshold: probability from which a variant is called positive, chosen on the validation split.
        shares: of positives per consequence class in training, from `consequence_shares`.
    """
    truth = np.array(labels)
    probability = np.array([score.probability for score in scores])
    zero_shot = -np.array([score.llr for score in scores])
    classes = np.array(consequences)
    baseline = consequence_only(shares, consequences)
    within = []
    for stratum, size in Counter(consequences).most_common():
        own = classes == stratum
        within.append(
            {
                "stratum": stratum,
                "variants": size,
                "positives": int(truth[own].sum()),
                "AUROC": auroc(truth[own], probability[own]),
                "AUPRC": auprc(truth[own], probability[own]),
                "zero_shot_AUROC": auroc(truth[own], zero_shot[own]),
            }
        )
    return {
        "variants": len(truth),
        "positives": int(truth.sum()),
        "threshold": threshold,
        "overall": summary(truth, probability, threshold),
        "zero_shot": {"AUROC": auroc(truth, zero_shot)},
        "consequence_only": {"AUROC": auroc(truth, baseline), "AUPRC": auprc(truth, baseline)},
        "within": within,
        "curves": {
            "model": _curves(truth, probability),
            "consequence_only": _curves(truth, baseline),
            "reliability": reliability(truth, probability),
        },
    }


def _curves(labels: NDArray, scores: NDArray) -> dict[str, list[list[float]]]:
    false_positive, true_positive, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {"roc": [_thin(false_positive), _thin(true_positive)], "pr": [_thin(recall), _thin(precision)]}


def _thin(values: NDArray) -> list[float]:
    keep = np.unique(np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(int))
    return [round(float(value), 5) for value in values[keep]]
