"""A training run's progress bar."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from lightning import Callback, LightningModule, Trainer

from genomamba.progress import progress_bar

_SECONDS_BETWEEN_LOOKS = 0.2  # a look at the figures takes as long as a small model's step


class TrainingProgress(Callback):
    """Steps done, ETA, throughput in Mbp/s, and what the task logs with ``prog_bar=True``."""

    def __init__(self, what: str, total_steps: int, bases_per_step: int) -> None:
        self.what, self.total_steps, self.bases_per_step = what, total_steps, bases_per_step
        self._open = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = self._open.enter_context(progress_bar())
        self._task = self._bar.add_task(self.what, total=self.total_steps, note="")
        self._first_step: int | None = None
        self._shown = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._first_step is None:  # a resumed run does not begin at 0
            self._first_step, self._began = trainer.global_step, time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if time.perf_counter() - self._shown > _SECONDS_BETWEEN_LOOKS:
            self._show(trainer)

    def _show(self, trainer: Trainer) -> None:
        self._shown = time.perf_counter()
        done = trainer.global_step - (self._first_step or 0)
        rate = done * self.bases_per_step / (time.perf_counter() - self._began) / 1e6
        figures = [
            f"{name.removesuffix('_per_base').replace('_', ' ')} {float(value):.2f}"
            for name, value in trainer.progress_bar_metrics.items()
        ]
        total = trainer.max_steps if trainer.max_steps > 0 else self.total_steps
        self._bar.update(
            self._task, total=total, completed=trainer.global_step, note=" ".join([f"{rate:.3g} Mbp/s", *figures])
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._first_step is not None:
            self._show(trainer)
        self._open.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._open.close()
