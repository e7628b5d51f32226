"""Probes answer as scikit-learn's own do, and take the best of their grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from genomamba.tasks.config import ProbeConfig
from genomamba.tasks.probes import ProbeData, as_tree_head, fit_probe


def data(classes: int, *, size: int = 120, answers: int = 2, seed: int = 0) -> ProbeData:
    random = np.random.default_rng(seed)
    target = random.integers(classes, size=size)
    features = random.normal(size=(size, answers, 4)) * [1, 5, 0.1, 2]
    features[..., 0] += 2 * target[:, None]
    features[..., 1] -= 5 * (target[:, None] == 1)
    return ProbeData(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(target))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_probe_is_scikit_learns_without_its_scaler(classes: int) -> None:
    train, dev, weights = data(classes), data(classes, seed=1), np.arange(1.0, classes + 1)
    head = fit_probe(ProbeConfig(strengths=[0.1]), train, dev, weights=weights, seed=0)
    scaler = StandardScaler().fit(train.rows)
    own = LogisticRegression(C=0.1, class_weight=dict(enumerate(weights)), max_iter=5000)
    own.fit(scaler.transform(train.rows), train.row_targets)
    ours = head(torch.from_numpy(dev.rows)).softmax(-1).detach().numpy()
    np.testing.assert_allclose(ours, own.predict_proba(scaler.transform(dev.rows)), rtol=1e-3, atol=1e-5)


def test_the_strength_is_chosen_on_dev() -> None:
    train, dev = data(2, size=12), data(2, seed=1)
    chosen = fit_probe(ProbeConfig(strengths=[1e-4, 0.1, 1e4]), train, dev, weights=np.ones(2), seed=0)
    alone = [fit_probe(ProbeConfig(strengths=[s]), train, dev, weights=np.ones(2), seed=0) for s in (1e-4, 0.1, 1e4)]
    losses = [
        torch.nn.functional.cross_entropy(head(dev.features.flatten(0, 1)).view(120, 2, 2).mean(1), dev.target).item()
        for head in alone
    ]
    best = alone[int(np.argmin(losses))]
    assert torch.equal(chosen.weight, best.weight)  # type: ignore[union-attr,arg-type]
    assert len({round(loss, 6) for loss in losses}) == 3


@pytest.mark.parametrize("classes", [2, 3, None])
def test_exported_trees_answer_as_the_original(classes: int | None) -> None:
    train = data(classes or 3)
    common = {"max_iter": 7, "max_leaf_nodes": 6, "early_stopping": False}
    if classes is None:
        own = HistGradientBoostingRegressor(**common).fit(train.rows, train.row_targets + train.rows[:, 3])
        expected = own.predict(train.rows)[:, None]
    else:
        own = HistGradientBoostingClassifier(**common).fit(train.rows, train.row_targets)
        expected = own.predict_proba(train.rows)
    got = as_tree_head(own, 7)(torch.from_numpy(train.rows))
    np.testing.assert_allclose(got if classes is None else got.softmax(-1), expected, rtol=1e-4, atol=1e-5)


def test_rounding_a_threshold_to_fp32_moves_no_row_to_the_other_side() -> None:
    low = np.float32(0.1)
    rows = np.array([[low], [np.nextafter(low, np.float32(1))]] * 30, dtype=np.float32)
    own = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=1).fit(rows, [0, 1] * 30)
    answers = as_tree_head(own, 3)(torch.from_numpy(rows)).softmax(-1)[:, 1].numpy()
    np.testing.assert_allclose(answers, own.predict_proba(rows)[:, 1], rtol=1e-5)
    assert answers[0] < 0.5 < answers[1]


def test_boosting_stops_where_dev_is_best() -> None:
    train, dev = data(2, size=60), data(2, seed=1)
    many = ProbeConfig(kind="boosting", trees=60, leaves=8, rate=0.5)
    head = fit_probe(many, train, dev, weights=np.ones(2), seed=0)
    assert head.shape.trees < 60  # type: ignore[union-attr]
    again = fit_probe(many, train, dev, weights=np.ones(2), seed=0)
    assert torch.equal(head.value, again.value)  # type: ignore[arg-type]
