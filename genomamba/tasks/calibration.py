"""What a validation split decides after training: a temperature, and the probability from which a class is called."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

COOLEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes softmax(logits / T) likeliest (Guo et al. 2017, section 4.2).

    Args:
        logits: of the validation split, (N, C).
        labels: classes, (N,).
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    found = minimize_scalar(loss, bounds=(math.log(COOLEST), math.log(HOTTEST)), method="bounded")
    return math.exp(float(found.x))


class Threshold(NamedTuple):
    value: float
    mcc: float  # of calling what reaches it


def best_threshold(probability: Tensor, labels: NDArray) -> Threshold:
    """The one with the best MCC (Matthews 1975), among the percentiles of the probabilities.

    Args:
        probability: of the positive class, (N,).
        labels: 0 or 1, (N,).
    """
    candidates = torch.quantile(probability, torch.linspace(0.01, 0.99, 99, dtype=probability.dtype)).numpy()
    positive = np.asarray(labels, dtype=bool)
    called = probability.numpy() >= candidates[:, None]
    tp, fp = (called & positive).sum(1, dtype=float), (called & ~positive).sum(1, dtype=float)
    fn, tn = positive.sum() - tp, (~positive).sum() - fp
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    mcc = np.divide(tp * tn - fp * fn, spread, out=np.zeros_like(spread), where=spread > 0)
    best = int(np.argmax(mcc))
    return Threshold(float(candidates[best]), float(mcc[best]))
