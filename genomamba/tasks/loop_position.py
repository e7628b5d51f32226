"""Where Lightning's fit loop stands. The one place that reaches into it: it has no public way to start at a step."""

from __future__ import annotations

from lightning import Trainer


def set_step(trainer: Trainer, step: int) -> None:
    """Makes a fit that has just begun count from ``step``: global_step, logging, the validation schedule."""
    loop = trainer.fit_loop.epoch_loop
    batches = step * trainer.accumulate_grad_batches
    for done, count in (
        (loop.automatic_optimization.optim_progress.optimizer.step.total, step),
        (loop.batch_progress.total, batches),
    ):
        done.reset()
        done.increment_by(count)
    loop._batches_that_stepped = step


def leave_signals_to_us(trainer: Trainer) -> None:
    """Lightning asks all ranks before every step whether one has had a SIGTERM, and waits for the device to do so."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def end_here(trainer: Trainer) -> None:
    """Makes the step just done the last one of the run."""
    trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


def run_validation(trainer: Trainer) -> None:
    """Validates within a fit, before its first or after its last step; logged under the step just done."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    loop._batches_that_stepped += 1
