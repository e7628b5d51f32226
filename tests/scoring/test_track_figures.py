"""Figures of tracks, from sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genomamba.model.config import Link
from genomamba.scoring.track_figures import TrackSums, base_loss


@pytest.mark.parametrize("link", ["identity", "log"])
def test_sums_of_pieces_give_the_figures_of_the_whole(link: Link) -> None:
    random = np.random.default_rng(0)
    # A spread that is small beside the mean: sums of plain squares in fp64 would lose it.
    target = random.poisson(4, (6, 500, 2)) * [1.0, 1e-3] + [1.0, 1e6]
    output = target + random.normal(0, 1, target.shape) * [0.1, 1e-3]
    target[random.random(target.shape) < 0.2] = np.nan
    mean = np.nanmean(target, (0, 1))
    sums = TrackSums(["a", "b"], torch.from_numpy(mean), link)
    for row in range(6):
        sums.add(torch.from_numpy(output[row]), torch.from_numpy(target[row]))
    sums.add(torch.zeros(0, 2), torch.zeros(0, 2))
    for track, found in enumerate(sums.figures()):
        counts = ~np.isnan(target[..., track])
        x, y = output[..., track][counts], target[..., track][counts]
        assert (found.track, found.bases) == ("ab"[track], counts.sum())
        assert found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        losses = [(x - y) ** 2, (mean[track] - y) ** 2]
        if link == "log":
            losses = [x - y * np.log(x), mean[track] - y * np.log(mean[track])]
        assert found.loss == pytest.approx(losses[0].mean(), rel=1e-9)
        assert found.baseline == pytest.approx(losses[1].mean(), rel=1e-9)


def test_poisson_is_torch_s() -> None:
    predictor, target = torch.randn(50), torch.randint(0, 9, (50,)).float()
    expected = F.poisson_nll_loss(predictor, target, reduction="none")
    torch.testing.assert_close(base_loss(predictor, target, "log"), expected)


def test_what_is_not_defined_is_none() -> None:
    sums = TrackSums(["constant", "same", "none"], torch.tensor([0.1, 0.1, 0.1]), "identity")
    assert [figure.loss for figure in sums.figures()] == [None] * 3
    random = torch.rand(2, 40)
    output = torch.stack([torch.full((40,), 0.1), random[0], random[0]], 1)
    target = torch.stack([random[1], torch.full((40,), 0.3), torch.full((40,), torch.nan)], 1)
    sums.add(output, target)
    constant, same, none = sums.figures()
    assert (constant.pearson, same.pearson) == (None, None)
    assert constant.loss == pytest.approx(constant.baseline)
    assert none == ("none", 0, None, None, None)


def test_a_rate_that_rounds_to_nothing_has_a_loss() -> None:
    sums = TrackSums(["a"], torch.tensor([1.0]), "log")
    sums.add(torch.zeros(1, 1), torch.ones(1, 1))
    (found,) = sums.figures()
    assert found.loss == pytest.approx(126 * np.log(2), rel=1e-6)
