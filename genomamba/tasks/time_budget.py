"""Training for so many minutes: how many steps that allows."""

from __future__ import annotations

import copy
import gc
import statistics
import time

import torch
from torch import Tensor
from torch.optim import Optimizer

from genomamba.data.datamodule import ReferenceWindows
from genomamba.data.datasets import Batch
from genomamba.tasks.config import Precision
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
    """How many steps fit into ``seconds``, from the time that a few take with windows of each length; at least 1.

    The number is settled before the run begins, so that the run is a function of it and not of the clock: the
    schedule ends where the run does, and what resumes goes on to the same bits. Nothing of the measuring stays:
    it trains a copy on the run's first windows.
    """
    state = take_rng_state()
    be_deterministic(device.type)
    task = copy.deepcopy(task).to(device).train()
    task.graph_short_steps(device)
    optimizer, _ = make_optimizer(task.model, task.optimizer_config, task.steps)
    per_step = 0.0
    for length, share in windows.training.shares.items():
        if not share:
            continue
        took: list[float] = []
        enough = _SHARE * share * seconds
        while len(took) < _WARM_UP + _FEWEST or (len(took) < _WARM_UP + _MOST and sum(took[_WARM_UP:]) < enough):
            began = time.perf_counter()
            batch = windows.first_batch(length)
            if windows.workers:  # they read while the device computes
                began = time.perf_counter()
            whole_step(task, optimizer, batch.to(device), device, precision).item()
            took.append(time.perf_counter() - began)
        per_step += share * statistics.median(took[_WARM_UP:])
    restore_rng_state(state)
    del task, optimizer
    gc.collect()  # graphs are part of a cycle, and hold as much memory as a step
    if device.type == "cpu":  # otherwise it is the device that decides
        per_step += _LOOP
    return max(1, int(seconds / per_step))


def whole_step(
    task: PretrainTask, optimizer: Optimizer, batch: Batch, device: torch.device, precision: Precision
) -> Tensor:
    """A step as the trainer does it, the batch standing for each of its parts; the last one's loss, not waited for."""
    optimizer.zero_grad(set_to_none=True)
    for _ in range(task.accumulate):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = task.training_step(batch, 0)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters(), task.optimizer_config.clip)
    optimizer.step()
    return loss.detach()
