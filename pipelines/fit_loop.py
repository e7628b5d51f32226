"""A fine-tuning from its first step to its best weights, whatever is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lightning import Callback
from torch.utils.data import DataLoader

from genomamba.data.workers import begin_worker
from genomamba.tasks.config import Device, OptimizerConfig, Precision
from genomamba.tasks.fine_tuning import FineTuning
from genomamba.tasks.progress import TrainingProgress
from genomamba.tasks.stop_signals import StopAtOnce, StoppedTraining, StopSignals
from genomamba.tasks.trainer import make_trainer, run_fit
from genomamba.tasks.training_clock import TrainingClock

# A batch without gradients is fast from about so many tokens on, and still small.
VALIDATION_TOKENS = 1 << 15


class FitOptions(Protocol):
    """The options that say how."""

    @property
    def device(self) -> Device: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def max_minutes(self) -> float | None: ...
    @property
    def workers(self) -> int: ...


class Stopped:
    """A signal ended training after something had been validated."""

    def __init__(self, error: StoppedTraining) -> None:
        self.how = str(error).partition(";")[0]
        self.exit_code = error.exit_code


def training_clock(options: FitOptions) -> TrainingClock:
    """Of ``max_minutes``, where that is given."""
    return TrainingClock(None if options.max_minutes is None else 60 * options.max_minutes)


def loader(options: FitOptions, **kwargs: Any) -> DataLoader:
    """A DataLoader with the loader processes that were asked for."""
    return DataLoader(
        **kwargs,
        num_workers=options.workers,
        worker_init_fn=begin_worker,
        persistent_workers=options.workers > 0,
    )


def fit_task(
    task: FineTuning,
    training: DataLoader,
    validation: DataLoader,
    *,
    options: FitOptions,
    clock: TrainingClock,
    folder: Path,
    bases_per_step: int,
) -> Stopped | None:
    """Trains the task's model in place; it ends with the weights of the best validation.

    Raises:
        StoppedTraining: a signal came before anything was validated.
        NonFiniteLossError: a step's loss was no number, or every validation's.
    """
    stop = StopSignals()
    callbacks: list[Callback] = [TrainingProgress("fine-tuning", task.steps, bases_per_step), StopAtOnce(stop), clock]
    trainer = make_trainer(
        folder,
        steps=task.steps,
        clip=options.optimizer.clip,
        device=options.device,
        precision=options.precision,
        callbacks=callbacks,
    )
    stopped = None
    try:
        with stop:
            run_fit(trainer, task, training, validation)
    except StoppedTraining as error:
        if not task.best:
            raise
        stopped = Stopped(error)
    task.take_best()
    return stopped
