"""How long a run has trained, and its end when that is as long as it may."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from genomamba.tasks.loop_position import end_here
from genomamba.tasks.metrics_log import LOG_EVERY
from genomamba.tasks.pretrain import PretrainTask


class TrainingClock(Callback):
    """Counts the seconds of training, logs them as train_seconds, and ends the run, with a last validation, in time.

    Not counted are validation, what is saved with it, and the first step of each process, which compiles kernels. The
    seconds are in checkpoints, so that a run that is stopped and resumed ends when one that is not would. Comes
    last among the callbacks.

    Args:
        seconds: to train for, in all; None: to the last step.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.spent = seconds, 0.0
        self._at: float | None = None

    def gone(self) -> float:
        """The share of the time that has gone by; 0 where it has no end."""
        return 0.0 if self.seconds is None else self.spent / max(self.seconds, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, PretrainTask):  # the first rank's, which checkpoints have
            pl_module.time_gone, pl_module.agreed = self.gone(), (0, self.gone())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        now = time.perf_counter()
        self.spent += 0.0 if self._at is None else now - self._at
        self._at = now
        if trainer.global_step % LOG_EVERY == 0:
            self._log(pl_module)
        gone = self.gone()
        if isinstance(pl_module, PretrainTask):
            pl_module.time_gone = gone
            if trainer.world_size > 1:  # the first one's clock decides, as of the step before
                gone = pl_module.agreed[1]
        if gone >= 1:
            end_here(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._at is not None:
            self._at = time.perf_counter()

    def _log(self, module: LightningModule) -> None:
        module.log("train_seconds", torch.tensor(self.spent))  # on the CPU, so that nothing waits for the device
