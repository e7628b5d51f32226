"""Temperature and threshold against a search by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from genomamba.tasks.calibration import best_threshold, fit_temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    logits = torch.randn(20_000, 3) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_the_threshold_is_the_best_of_the_percentiles() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.2).astype(int)
    probability = torch.from_numpy(np.clip(0.2 * labels + random.random(200) * 0.6, 0, 1))
    found = best_threshold(probability, labels)
    percentiles = np.quantile(probability.numpy(), np.linspace(0.01, 0.99, 99))
    scores = [matthews_corrcoef(labels, probability.numpy() >= cut) for cut in percentiles]
    assert found.mcc == pytest.approx(max(scores))
    assert matthews_corrcoef(labels, probability.numpy() >= found.value) == pytest.approx(max(scores))


def test_probabilities_that_say_nothing_give_an_mcc_of_nothing() -> None:
    assert best_threshold(torch.full((10,), 0.5), np.array([0, 1] * 5)).mcc == 0
