"""The running mean of weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genomamba.tasks.averaging import RunningMean


@torch.no_grad()
def test_the_mean_is_in_place_only_while_the_context_lasts() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    mean = RunningMean(model, 0.5)
    with mean.in_place():  # before any step it is the model's own
        pass
    for value in (1.0, 2.0, 4.0):
        model.weight.fill_(value)
        model.bias.fill_(value)
        mean.update()
    # decays 3/12 and 4/13: the first weights are forgotten quickly
    second = 1 * 3 / 12 + 2 * 9 / 12
    expected = second * 4 / 13 + 4 * 9 / 13
    with mean.in_place():
        assert model.weight.item() == pytest.approx(expected)
        assert model.bias.item() == 4.0  # frozen, so it is not followed
    assert model.weight.item() == 4.0
