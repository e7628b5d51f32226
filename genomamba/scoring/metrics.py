"""Figures of a binary classifier, with bootstrap intervals; None where a figure is not defined."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, matthews_corrcoef, roc_auc_score

BOOTSTRAPS = 500
FEWEST = 5
NO_CLASS = "(none given)"
Statistic = Callable[[NDArray, NDArray], float]


class Figure(NamedTuple):
    """A value with its 95 % percentile bootstrap interval.

    All None where it is not defined; the interval alone where a class has fewer than FEWEST members, since
    resampling so few says nothing of what others would have given.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "NA"
        return f"{self.value:.3f}" if self.low is None else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auroc(labels: NDArray, scores: NDArray, *, seed: int = 0) -> Figure:
    """Area under the ROC curve; not defined for one class."""
    return _figure(roc_auc_score, labels, scores, seed)


def auprc(labels: NDArray, scores: NDArray, *, seed: int = 0) -> Figure:
    """Average precision; not defined for one class."""
    return _figure(average_precision_score, labels, scores, seed)


def mcc(labels: NDArray, probabilities: NDArray, threshold: float, *, seed: int = 0) -> Figure:
    """Matthews' correlation of labels and what is called from the threshold on; not defined for one class."""
    return _figure(matthews_corrcoef, labels, (probabilities >= threshold).astype(int), seed)


def summary(labels: NDArray, probabilities: NDArray, threshold: float) -> dict[str, Figure]:
    """AUROC, AUPRC, MCC at the threshold, Brier score and expected calibration error."""
    return {
        "AUROC": auroc(labels, probabilities),
        "AUPRC": auprc(labels, probabilities),
        "MCC": mcc(labels, probabilities, threshold),
        "Brier": _figure(brier_score_loss, labels, probabilities, 0),
        "ECE": _figure(expected_calibration_error, labels, probabilities, 0),
    }


def expected_calibration_error(labels: NDArray, probabilities: NDArray, bins: int = 10) -> float:
    """Mean of |share of positives - mean probability| over equal-width bins, weighted by size (Naeini et al. 2015)."""
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    size = np.bincount(which, minlength=bins)
    positives = np.bincount(which, weights=labels, minlength=bins)
    confidence = np.bincount(which, weights=probabilities, minlength=bins)
    return float(np.abs(positives - confidence).sum() / size.sum())


def reliability(labels: NDArray, probabilities: NDArray, bins: int = 10) -> tuple[list[float], list[float]]:
    """(mean probability, share of positives) of the bins that hold anything."""
    share, mean = calibration_curve(labels, probabilities, n_bins=bins)
    return mean.tolist(), share.tolist()


def bootstrap(statistic: Callable[[NDArray], float], labels: NDArray | None, size: int, *, seed: int = 0) -> Figure:
    """A statistic of rows with its interval.

    Args:
        statistic: of the rows whose numbers it is given.
        labels: classes of the rows, (N,); a resample that lacks one is drawn again, and where a class has fewer
            than FEWEST rows there is no interval. None where the statistic is defined whatever the labels.
        size: N.
        seed: of the resamples.
    """
    random = np.random.default_rng(seed)
    values: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample of one predicted class has an MCC of 0, which is right
        value = float(statistic(np.arange(size)))
        known, inverse = (None, None) if labels is None else np.unique(labels, return_inverse=True)
        if size < FEWEST or (inverse is not None and np.bincount(inverse).min() < FEWEST):
            return Figure(value)
        while len(values) < BOOTSTRAPS:
            rows = random.integers(size, size=size)
            if known is None or inverse is None or np.bincount(inverse[rows], minlength=len(known)).all():
                values.append(statistic(rows))
    low, high = np.quantile(values, [0.025, 0.975])
    return Figure(value, float(low), float(high))


def _figure(statistic: Statistic, labels: NDArray, scores: NDArray, seed: int) -> Figure:
    if len(np.unique(labels)) < 2:
        return Figure(None)
    return bootstrap(lambda rows: statistic(labels[rows], scores[rows]), labels, len(labels), seed=seed)


class Labelled(Protocol):
    """A labelled variant."""

    @property
    def label(self) -> int: ...
    @property
    def consequence(self) -> str: ...


def consequence_shares(items: Iterable[Labelled]) -> dict[str, float]:
    """The share of positives per consequence class of the training split; "" holds the overall share.

    Shares are smoothed by one variant of the overall share.
    """
    labels: dict[str, list[int]] = {}
    for item in items:
        labels.setdefault(item.consequence or NO_CLASS, []).append(item.label)
    everything = [label for own in labels.values() for label in own]
    overall = sum(everything) / len(everything)
    shares = {name: (sum(own) + overall) / (len(own) + 1) for name, own in sorted(labels.items())}
    return {"": overall, **shares}


def consequence_only(shares: Mapping[str, float], consequences: Sequence[str]) -> NDArray:
    """What the class alone predicts, (V,); a class that training never saw gets the overall share."""
    return np.array([shares.get(consequence, shares[""]) for consequence in consequences])
