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


@pytest.mark.parametrize("link", ["identity", "log"])
@torch.no_grad()
def test_a_folded_head_gives_what_was_validated(link: Link) -> None:
    task = task_of(link, [2.0, 300.0], [0.5, 40.0])
    batch = batch_of(torch.rand(2, 9, 2))
    before = task.model.outputs(task._predictors(batch))
    task.fold()
    torch.testing.assert_close(task.model(batch.ids), before)


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
    torch.testing.assert_close(task.training_step(batch, 0), each[~target.isnan()].mean())


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
