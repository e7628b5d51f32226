"""Training for so many minutes: how many steps that allows, and the clock that holds it to that."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from genomamba.data.datamodule import ReferenceWindows
from genomamba.data.datasets import Batch
from genomamba.tasks.config import Precision
from genomamba.tasks.loop_position import end_here
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.rng_state import restore_rng_state, take_rng_state
from genomamba.tasks.trainer import be_deterministic

_WARM_UP, _FEWEST, _MOST = 2, 3, 10  # steps
_SHARE = 0.02  # of the time, for measuring
_LOOP = 2e-3  # seconds of a step that hooks and logging take


def affordable_steps(
    task: PretrainTask, windows: ReferenceWindows, seconds: float, device: torch.device, precision: Precision
) -> int:
    """How many steps fit into ``seconds``, from the time that a few take; at least 1.

    The number is settled before the run begins, so that the run is a function of it and not of the clock: the
    schedule ends where the run does, and what resumes goes on to the same bits. Nothing of the measuring stays:
    it trains a copy on the run's first batch.
    """
    state = take_rng_state()
    be_deterministic(device.type)
    task = copy.deepcopy(task).to(device).train()
    task.graph_short_steps(device)
    optimizer, _ = make_optimizer(task.model, task.optimizer_config, task.steps)
    took: list[float] = []
    while len(took) < _WARM_UP + _FEWEST or (len(took) < _WARM_UP + _MOST and sum(took[_WARM_UP:]) < _SHARE * seconds):
        began = time.perf_counter()
        batch = windows.first_batch()
        if windows.workers:  # they read while the device computes
            began = time.perf_counter()
        whole_step(task, optimizer, batch.to(device), device, precision)
        took.append(time.perf_counter() - began)
    restore_rng_state(state)
    per_step = statistics.median(took[_WARM_UP:])
    if device.type == "cpu":  # otherwise it is the device that decides
        per_step += _LOOP
    return max(1, int(seconds / per_step))


def whole_step(
    task: PretrainTask, optimizer: Optimizer, batch: Batch, device: torch.device, precision: Precision
) -> None:
    """A step as the trainer does it, the batch standing for each of its parts; waits for the device."""
    optimizer.zero_grad(set_to_none=True)
    for _ in range(task.accumulate):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = task.training_step(batch, 0)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters(), task.optimizer_config.clip)
    optimizer.step()
    loss.item()


class TimeBudget(Callback):
    """Ends a run that has trained for ``seconds``; validation and what is saved with it are not counted.

    The time that a resumed run has spent is in its checkpoint.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent = seconds, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.spent, self._at = self.spent + now - self._at, now
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        assert isinstance(pl_module, PretrainTask)
        is_up = self.spent >= self.seconds
        if trainer.world_size > 1:  # by the first rank's clock, as of the step before
            is_up, pl_module.time_is_up = bool(pl_module.agreed[1]), is_up
        if is_up:
            end_here(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at = time.perf_counter()
