"""Classifiers on frozen features, fitted by scikit-learn and kept as tensors: nothing is ever pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from genomamba.errors import GenoMambaError
from genomamba.model.trees import TreeHead, TreeShape
from genomamba.tasks.config import ProbeConfig


class ProbeData(NamedTuple):
    """What a probe is fitted to.

    Attributes:
        features: (N, S, F), S answers of which are averaged, such as those for two strands.
        target: class, or standardised value, (N,).
    """

    features: Tensor
    target: Tensor

    @property
    def rows(self) -> NDArray[np.float32]:
        """(N S, F)."""
        return self.features.flatten(0, 1).numpy()

    @property
    def row_targets(self) -> NDArray:
        """(N S,)."""
        return self.target.repeat_interleave(self.features.shape[1]).numpy()


class ExportError(GenoMambaError):
    """Exported trees do not answer as the original did; the version of scikit-learn has other trees."""


def fit_probe(
    config: ProbeConfig, train: ProbeData, dev: ProbeData, *, weights: NDArray | None, seed: int
) -> nn.Linear | TreeHead:
    """A head (B, F) → (B, outputs) that minimises the dev split's loss among what the configuration allows.

    Args:
        config: kind and grid.
        train: to fit.
        dev: to choose by.
        weights: (C,), what each class counts, C ≥ 2; None for a regression.
        seed: of boosting.
    """
    if config.kind == "logistic":
        return _linear(config, train, dev, weights)
    return _boosted(config, train, dev, weights, seed)


def _linear(config: ProbeConfig, train: ProbeData, dev: ProbeData, weights: NDArray | None) -> nn.Linear:
    scaler = StandardScaler().fit(train.rows)
    rows, targets = scaler.transform(train.rows), train.row_targets
    best, lowest = None, np.inf
    for strength in config.strengths:
        if weights is None:
            fitted: Any = Ridge(alpha=1 / strength).fit(rows, targets)
        else:
            own = dict(enumerate(weights.tolist()))
            fitted = LogisticRegression(C=strength, class_weight=own, max_iter=5_000).fit(rows, targets)
        head = _as_linear(fitted, scaler)
        loss = _loss(head, dev, weights)
        if loss < lowest:
            best, lowest = head, loss
    assert best is not None, "a finite loss for one strength at least"
    return best


@torch.no_grad()
def _as_linear(fitted: Any, scaler: StandardScaler) -> nn.Linear:
    """The same answers without the scaler; of two classes the first gets a logit of 0."""
    weight = np.atleast_2d(fitted.coef_) / scaler.scale_
    bias = np.atleast_1d(fitted.intercept_) - weight @ scaler.mean_
    if isinstance(fitted, LogisticRegression) and len(fitted.classes_) == 2:
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.weight.copy_(torch.from_numpy(weight))
    head.bias.copy_(torch.from_numpy(bias))
    return head


def _boosted(config: ProbeConfig, train: ProbeData, dev: ProbeData, weights: NDArray | None, seed: int) -> TreeHead:
    kind: Callable[..., Any] = HistGradientBoostingRegressor if weights is None else HistGradientBoostingClassifier
    extra = {} if weights is None else {"class_weight": dict(enumerate(weights.tolist()))}
    fitted = kind(
        max_iter=config.trees,
        max_leaf_nodes=config.leaves,
        learning_rate=config.rate,
        early_stopping=False,
        random_state=seed,
        **extra,
    ).fit(train.rows, train.row_targets)
    head = as_tree_head(fitted, config.trees)
    original = fitted.predict(train.rows) if weights is None else fitted.decision_function(train.rows)
    _check_export(head, train.rows, original)
    rounds = [as_tree_head(fitted, count) for count in _counts(config.trees)]
    losses = [_loss(head, dev, weights) for head in rounds]
    return rounds[int(np.argmin(losses))]


def _counts(most: int) -> list[int]:
    """Numbers of rounds that are tried: about 20, the last being the most."""
    return sorted({int(count) for count in np.linspace(1, most, 20).round()})


@torch.no_grad()
def as_tree_head(fitted: Any, rounds: int) -> TreeHead:
    """The first rounds of a fitted histogram gradient boosting as tensors.

    Thresholds are rounded down to fp32, which changes no comparison with fp32 features.
    """
    trees = [(tree.nodes, output) for each in fitted._predictors[:rounds] for output, tree in enumerate(each)]
    baseline = np.ravel(fitted._baseline_prediction)
    two_classes = hasattr(fitted, "classes_") and baseline.size == 1
    shape = TreeShape(
        trees=len(trees),
        nodes=max(len(nodes) for nodes, _ in trees),
        depth=max(1, *(int(nodes["depth"].max()) for nodes, _ in trees)),
    )
    head = TreeHead(shape, 2 if two_classes else baseline.size)
    head.baseline.copy_(torch.from_numpy(np.array([0.0, baseline[0]]) if two_classes else baseline))
    for number, (nodes, output) in enumerate(trees):
        size = len(nodes)
        leaf = nodes["is_leaf"].astype(bool)
        itself = np.arange(size)
        limit = nodes["num_threshold"].astype(np.float32)
        limit = np.where(limit > nodes["num_threshold"], np.nextafter(limit, np.float32(-np.inf)), limit)
        head.feature[number, :size] = torch.from_numpy(np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64))
        head.left[number, :size] = torch.from_numpy(np.where(leaf, itself, nodes["left"]).astype(np.int64))
        head.right[number, :size] = torch.from_numpy(np.where(leaf, itself, nodes["right"]).astype(np.int64))
        head.threshold[number, :size] = torch.from_numpy(np.where(leaf, np.float32(0), limit).astype(np.float32))
        head.value[number, :size] = torch.from_numpy(np.where(leaf, nodes["value"], 0).astype(np.float32))
        head.output[number] = 1 if two_classes else output
    return head


def _check_export(head: TreeHead, rows: NDArray[np.float32], original: NDArray) -> None:
    """scikit-learn does not promise how it keeps its trees, so the export has to prove itself."""
    ours = head(torch.from_numpy(rows)).numpy()
    ours = ours[:, 1] - ours[:, 0] if original.ndim == 1 and ours.shape[1] == 2 else ours.reshape(original.shape)
    if not np.allclose(ours, original, rtol=1e-3, atol=1e-3):
        raise ExportError(
            "the exported trees answer otherwise than scikit-learn's; install another version of it, "
            "or use --probe.kind logistic"
        )


@torch.no_grad()
def _loss(head: nn.Module, data: ProbeData, weights: NDArray | None) -> float:
    rows, answers, width = data.features.shape
    outputs = head(data.features.reshape(-1, width)).view(rows, answers, -1).mean(1).double()
    if weights is None:
        return float(((outputs.squeeze(-1) - data.target) ** 2).mean())
    unweighted = outputs - torch.from_numpy(np.log(weights))
    return float(log_loss(data.target.numpy(), unweighted.softmax(-1).numpy(), labels=np.arange(len(weights))))
