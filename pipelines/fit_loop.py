"""A fine-tuning from its first step, or its last checkpoint, to its best weights, whatever is trained."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lightning import LightningModule
from torch.utils.data import DataLoader, Dataset

from genomamba.data.datasets import RunBatches
from genomamba.data.workers import begin_worker
from genomamba.pipelines.pretrain import resuming
from genomamba.tasks.checkpoints import Checkpoints, last_good
from genomamba.tasks.config import Device, OptimizerConfig, Precision
from genomamba.tasks.fine_tuning import FineTuning
from genomamba.tasks.progress import TrainingProgress
from genomamba.tasks.stop_signals import AbandonedTraining, InterruptedTraining, StopSignals
from genomamba.tasks.trainer import make_trainer, run_fit
from genomamba.tasks.training_clock import TrainingClock

# A batch without gradients is fast from about so many tokens on, and still small.
VALIDATION_TOKENS = 1 << 15
KEPT = 2  # checkpoints: the last, and the one before should that be damaged


class FitOptions(Protocol):
    """The options that say how."""

    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def seed(self) -> int: ...
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
    @property
    def resume(self) -> bool: ...
    @property
    def checkpoint_every(self) -> int | None: ...


class Stopped:
    """A signal ended training after something had been validated; a checkpoint was written."""

    def __init__(self, error: InterruptedTraining) -> None:
        how, _, goes_on = str(error).partition("; ")
        self.told = f"{how}; what was best until then is kept, and {goes_on}"
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


def steps_of(options: FitOptions, examples: int) -> int:
    """Of all epochs of so many examples."""
    return options.epochs * -(-examples // options.batch_size)


def made_with(pretrained: Mapping[str, str] | None, **parts: Iterable[bytes]) -> dict[str, str]:
    """What a resumed run must agree with: hashes of what is trained on, and the weights that it started from."""
    found = {}
    for name, pieces in parts.items():
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(hashlib.sha256(piece).digest())
        found[name] = digest.hexdigest()
    return found | ({} if pretrained is None else {"pretrained": pretrained["weights"]})


def run_steps(
    task: LightningModule,
    dataset: Dataset,
    validation: DataLoader,
    *,
    options: FitOptions,
    examples: int,
    collate: Callable[[Any], Any],
    shuffled: bool = True,
    clock: TrainingClock,
    folder: Path,
    bases_per_step: int,
    facts: dict[str, str],
) -> None:
    """Trains, where ``options.resume`` is set from the last good checkpoint on.

    Args:
        task: with the model as it is before the first step.
        dataset: of what `RunBatches` names.
        validation: what follows each epoch.
        options: of the command.
        examples: of an epoch.
        collate: makes a batch.
        shuffled: whether each epoch has its own order.
        clock: of the task.
        folder: of the run.
        bases_per_step: for the progress that is shown.
        facts: of `made_with`.

    Raises:
        CheckpointError: there are checkpoints, and none can be gone on from.
        InterruptedTraining: a signal came; a checkpoint was written.
    """
    found = last_good(folder, task.state_dict(), facts) if options.resume else None
    if options.resume:
        print(resuming(folder, found), file=sys.stderr)
    start, total = 0 if found is None else found.step, steps_of(options, examples)
    steps = start if found is not None and found.ended else total
    # After the last step nothing is read, but Lightning complains of a loader without a batch.
    order = options.seed if shuffled else None
    batches = RunBatches(examples, options.batch_size, options.epochs, shuffle_seed=order, start=min(start, total - 1))
    stop = StopSignals()
    checkpoints = Checkpoints(
        folder,
        every=options.checkpoint_every or batches.per_epoch,
        validate_every=batches.per_epoch,
        keep=KEPT,
        monitor=None,
        facts=facts,
        stop=stop,
    )
    trainer = make_trainer(
        folder,
        steps=steps,
        clip=options.optimizer.clip,
        device=options.device,
        precision=options.precision,
        callbacks=[TrainingProgress("fine-tuning", total, bases_per_step), checkpoints, clock],
        validate_every=batches.per_epoch,
        resumed_at=start,
    )
    training = loader(options, dataset=dataset, batch_sampler=batches, collate_fn=collate)
    path = None if found is None else found.path
    with stop:
        run_fit(trainer, task, training, validation, ckpt_path=path, weights_only=True)


def fit_task(task: FineTuning, dataset: Dataset, validation: DataLoader, **how: Any) -> Stopped | None:
    """Trains the task's model in place; it ends with the weights of the best validation.

    Args:
        task: see `run_steps`.
        dataset: see `run_steps`.
        validation: see `run_steps`.
        how: all else that `run_steps` asks for.

    Raises:
        CheckpointError: there are checkpoints, and none can be gone on from.
        InterruptedTraining: a signal came before anything was validated, or Ctrl-C twice.
        NonFiniteLossError: a step's loss was no number, or every validation's.
    """
    stopped = None
    try:
        run_steps(task, dataset, validation, **how)
    except AbandonedTraining:
        raise
    except InterruptedTraining as error:
        if not task.best:
            raise
        stopped = Stopped(error)
    task.take_best()
    return stopped
