"""What a class weighs in training does not depend on what else is in its batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig, SequenceHeadConfig
from genomamba.model.sequence_heads import SequenceModel
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.sequences import SequenceBatch, SequenceTask

TARGETS = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
WEIGHTS = 10 / (3 * TARGETS.bincount())  # balanced: the mean over all ten is 1


@pytest.fixture
def task() -> SequenceTask:
    model = SequenceModel(ModelConfig(d_model=8, n_layer=1, d_state=2), SequenceHeadConfig(), ["a", "b", "c"])
    model.log_weight.copy_(WEIGHTS.log())
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_()
    task = SequenceTask(model, OptimizerConfig(), 10, smoothing=0.1)
    task.eval()  # without dropout
    return task


def batch(rows: slice) -> SequenceBatch:
    ids = torch.randint(alphabet.A, alphabet.T + 1, (10, 12), generator=torch.Generator().manual_seed(0))
    return SequenceBatch(ids.to(torch.uint8)[rows], None, TARGETS[rows], [])


def loss(task: SequenceTask, rows: slice) -> Tensor:
    return task.training_step(batch(rows), 0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_mean_over_all_batches_is_that_of_all_sequences(task: SequenceTask, size: int) -> None:
    parts = [loss(task, slice(start, start + size)) for start in range(0, 10, size)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(task, slice(10)))


def test_a_sequence_alone_counts_by_its_class(task: SequenceTask) -> None:
    for row, label in ((0, 0), (7, 1), (9, 2)):
        one = batch(slice(row, row + 1))
        logits = task.model(one.ids, None, given_only=True)
        hard = F.cross_entropy(logits, one.target)
        task.smoothing = 0.0
        torch.testing.assert_close(loss(task, slice(row, row + 1)), WEIGHTS[label] * hard)


def test_gradients_follow(task: SequenceTask) -> None:
    def gradient(rows: slice) -> Any:
        return torch.autograd.grad(loss(task, rows), list(task.model.head.parameters()))

    parts = [gradient(slice(row, row + 1)) for row in range(10)]
    for whole, *each in zip(gradient(slice(10)), *parts, strict=True):
        torch.testing.assert_close(torch.stack(each).mean(0), whole)
