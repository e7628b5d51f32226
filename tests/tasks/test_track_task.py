"""The loss of tracks, and the weights that a fine-tuning keeps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from genomamba.data.track_windows import TrackBatch
from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig
from genomamba.model.sequence_heads import TokenModel
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.pretrain import NonFiniteLossError
from genomamba.tasks.tracks import TrackTask

Link = Literal["identity", "log"]


def task_of(link: Link, mean: list[float], spread: list[float]) -> TrackTask:
    torch.manual_seed(0)
    model = TokenModel(ModelConfig(d_model=8, n_layer=1, d_state=2), ["a", "b"], link=link)
    return TrackTask(model, OptimizerConfig(), 3, mean=np.array(mean), spread=np.array(spread))


def batch_of(target: Tensor) -> TrackBatch:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(alphabet.A, alphabet.T + 1, target.shape[:2], generator=random, dtype=torch.uint8)
    return TrackBatch(ids, None, target, [])


@pytest.mark.parametrize("link", ["identity", "log"])
def test_a_track_s_unit_changes_nothing_in_training(link: Link) -> None:
    target = torch.rand(2, 9, 2) + 0.5
    target[0, 3, 0] = torch.nan
    slopes = []
    for factor in (1.0, 1000.0):
        unit = torch.tensor([1.0, factor])
        task = task_of(link, [1.0, factor], [0.3, 0.3 * factor])
        task.training_step(batch_of(target * unit), 0).backward()
        slopes.append([parameter.grad for parameter in task.model.parameters()])
    assert any(slope is not None and slope.abs().max() > 1e-3 for slope in slopes[0])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def learnt(task: TrackTask, target: Tensor) -> list[Tensor | None]:
    """The slopes of a training step."""
    loss = task.training_step(batch_of(target), 0)
    assert loss.isfinite()
    loss.backward()
    return [parameter.grad for parameter in task.model.parameters()]


@pytest.mark.parametrize(("mean", "spread"), [(2.0**20, 1.0), (-(2.0**20), 2.0**-3), (0.0, 2.0**-90), (0.0, 2.0**90)])
def test_a_mean_or_a_unit_far_from_1_costs_no_digits(mean: float, spread: float) -> None:
    standard = torch.randint(-2, 3, (2, 9, 2)).float()  # so that fp32 has the targets exactly
    target = standard * spread + mean
    assert torch.equal((target.double() - mean) / spread, standard.double())
    expected = learnt(task_of("identity", [0.0, 0.0], [1.0, 1.0]), standard)
    found = learnt(task_of("identity", [mean] * 2, [spread] * 2), target)
    assert any(slope is not None and slope.abs().max() > 1e-3 for slope in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_rate_far_from_1_costs_no_digits() -> None:
    standard = torch.randint(0, 4, (2, 9, 2)).float()
    expected = learnt(task_of("log", [1.0, 1.0], [1.0, 1.0]), standard)
    for mean in (2.0**-130, 2.0**90):
        for one, other in zip(learnt(task_of("log", [mean] * 2, [1.0] * 2), standard * mean), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("mean", "spread"), [(2.0**20, 1.0), (0.0, 2.0**-90)])
@torch.no_grad()
def test_validation_is_in_the_tracks_unit_and_its_loss_in_variances(
    monkeypatch: pytest.MonkeyPatch, mean: float, spread: float
) -> None:
    task = task_of("identity", [mean] * 2, [spread] * 2)
    monkeypatch.setattr(task, "log_dict", lambda *_, **__: None)
    standard = torch.randint(-2, 3, (2, 9, 2)).float()
    batch = batch_of(standard * spread + mean)
    task.on_validation_epoch_start()
    task.validation_step(batch, 0)
    apart = task.model.predictors(batch.ids).double() - standard.double()
    for figure, own in zip(task._sums.figures(), apart.square().flatten(0, 1).mean(0).tolist(), strict=True):
        assert figure.loss == pytest.approx(own * spread**2, rel=1e-6)
    task.on_validation_epoch_end()
    assert task.best["valid_loss"] == pytest.approx(float(apart.square().mean()), rel=1e-6)


@pytest.mark.parametrize("link", ["identity", "log"])
@torch.no_grad()
def test_a_folded_head_gives_what_was_validated(link: Link) -> None:
    task = task_of(link, [2.0, 300.0], [0.5, 40.0])
    batch = batch_of(torch.rand(2, 9, 2))
    before = task.model.outputs(task._predictors(batch))
    task.fold()
    torch.testing.assert_close(task.model(batch.ids), before.float())


@pytest.mark.parametrize("link", ["identity", "log"])
@torch.no_grad()
def test_the_loss_is_a_mean_over_what_counts(link: Link) -> None:
    task = task_of(link, [2.0, 3.0], [0.5, 2.0])
    target = torch.rand(2, 9, 2)
    target[1, 4:] = torch.nan
    target[0, 2, 1] = torch.nan
    batch = batch_of(target)
    p = task._predictors(batch)
    each = p.exp() - target * p if link == "log" else (p - target) ** 2
    each = each * torch.tensor([1 / 2, 1 / 3] if link == "log" else [4.0, 0.25])
    torch.testing.assert_close(task.training_step(batch, 0), each[~target.isnan()].mean().float())


def test_the_best_weights_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("identity", [0.0, 0.0], [1.0, 1.0])
    monkeypatch.setattr(task, "log_dict", lambda *_, **__: None)
    with pytest.raises(NonFiniteLossError, match="no validation gave a finite loss"):
        task.take_best()
    for value, improved in ((1.0, True), (2.0, True), (3.0, False)):
        with torch.no_grad():
            task.model.head.bias.fill_(value)
        task.validated({"valid_loss": value}, improved=improved)
    task.take_best()
    assert task.model.head.bias.tolist() == [2.0, 2.0]
    assert (task.best["validation"], task.best["valid_loss"]) == (2, 2.0)
