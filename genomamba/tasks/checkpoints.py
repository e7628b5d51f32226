"""When a run is saved, which checkpoints are kept, and which one a resumed run starts from."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genomamba.errors import CheckpointError
from genomamba.tasks.checkpoint_io import PROGRESS, read_checkpoint
from genomamba.tasks.loop_position import leave_signals_to_us, run_validation, set_step
from genomamba.tasks.metrics_log import MetricsLog
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.ranks import leave_to_others
from genomamba.tasks.rng_state import restore_rng_state, take_rng_state
from genomamba.tasks.stop_signals import InterruptedTraining, StopSignals

FOLDER = "checkpoints"
_NAME = re.compile(r"step-([0-9]+)\.ckpt")


class _Position(NamedTuple):
    step: int
    validated: bool  # whether the validation due after this step, if any, is done


class Checkpoints(Callback):
    """Saves every so many steps, after each validation, at the end, and when a signal asks to stop.

    A resumed run starts its loops afresh at the saved step. Lightning's own loop state is left out of the file:
    the order of samples and the validations follow from the step alone.

    Args:
        folder: of the run; the files are ``checkpoints/step-N.ckpt`` in it.
        every: steps between checkpoints.
        validate_every: steps between validations, the last step being followed by one too; None: never.
        keep: how many of the latest stay, besides the best.
        monitor: the logged figure whose smallest value is the best; None where the task itself keeps what was best.
        facts: what a resumed run must agree with, such as the data's fingerprint.
        stop: set by signals.

    Attributes:
        figure: the latest value of ``monitor``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        validate_every: int | None,
        keep: int,
        monitor: str | None,
        facts: Mapping[str, str],
        stop: StopSignals,
    ) -> None:
        self.run_folder, self.folder, self.stop = folder, folder / FOLDER, stop
        self.every, self.validate_every, self.keep = every, validate_every, keep
        self.monitor, self.facts = monitor, dict(facts)
        self.figure: float | None = None
        self._best: list = []  # its figure and step
        self._validated_at = -1
        self._saved: _Position | None = None
        self._rng: dict[str, Any] | None = None  # to be restored when the first step begins

    @property
    def lowest(self) -> tuple[float, int] | None:
        """The figure that was best, and after how many steps."""
        return (self._best[0], self._best[1]) if self._best else None

    def best_weights(self) -> dict[str, Tensor]:
        """Of the model when the figure was best.

        Raises:
            CheckpointError: that checkpoint is gone or damaged.
        """
        path = _path(self.folder, self._best[1])
        try:
            weights = read_checkpoint(path)["state_dict"]
        except CheckpointError as error:
            remedy = "put it back and go on with --resume, or leave out --write best"
            raise CheckpointError(error.problem, remedy, file=path) from error
        return {name.removeprefix("model."): tensor for name, tensor in weights.items()}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        del checkpoint["loops"]
        checkpoint[PROGRESS] = {
            "step": trainer.global_step,
            "ended": trainer.global_step == trainer.max_steps or trainer.should_stop,
            "validated": self._position(trainer).validated,
            "figure": self.figure,
            "best": self._best,
            "rng": every_rank(trainer, self._rng or take_rng_state()),
            "facts": self.facts,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint[PROGRESS]
        self.figure, self._best = progress["figure"], progress["best"]
        self._rng = progress["rng"][trainer.global_rank]
        self._saved = _Position(progress["step"], progress["validated"])
        self._validated_at = progress["step"] if progress["validated"] else -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, PretrainTask):
            pl_module.stop = self.stop
        if trainer.is_global_zero:
            self.stop.install()
        else:  # Lightning has just put its own handler there
            leave_to_others()
        leave_signals_to_us(trainer)
        if self._saved is not None:
            set_step(trainer, self._saved.step)
            self._validate_if_due(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # a run goes on from whole steps
        # Not at the end of the step before: its figures are logged after the last of its hooks.
        self._stop_if_asked(trainer)
        if trainer.global_step and trainer.global_step % self.every == 0:
            self._save(trainer)
            self._stop_if_asked(trainer)
        if self._rng is not None:
            restore_rng_state(self._rng)
            self._rng = None

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated_at = trainer.global_step
        figure = None if self.monitor is None else trainer.callback_metrics.get(self.monitor)
        self.figure = None if figure is None else float(figure)
        if self.figure is not None and (not self._best or self.figure < self._best[0]):
            self._best = [self.figure, trainer.global_step]
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)
        self._validate_if_due(trainer)
        self._save(trainer)
        self._stop_if_asked(trainer)

    def _position(self, trainer: Trainer) -> _Position:
        step = trainer.global_step
        due = self.validate_every is not None and (step % self.validate_every == 0 or step == trainer.max_steps)
        return _Position(step, not due or step == 0 or self._validated_at == step)

    def _validate_if_due(self, trainer: Trainer) -> None:
        if not self._position(trainer).validated:
            run_validation(trainer)

    def _save(self, trainer: Trainer) -> None:
        now = self._position(trainer)
        if now == self._saved:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                logger.write()
        self.folder.mkdir(exist_ok=True)
        trainer.save_checkpoint(_path(self.folder, now.step))
        self._saved = now
        if not trainer.is_global_zero:
            return
        kept = {step for step, _ in _newest_first(self.folder)[: self.keep]} | set(self._best[1:])
        for step, path in _newest_first(self.folder):
            if step not in kept:
                path.unlink()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        received = self.stop.received
        if trainer.world_size > 1:  # all ranks stop after the same step
            task = trainer.lightning_module
            assert isinstance(task, PretrainTask)
            received = signal.Signals(task.agreed[0]) if task.agreed[0] and not trainer.validating else None
        if received is not None:
            self._save(trainer)
            raise InterruptedTraining(received, trainer.global_step, self.run_folder)


def every_rank(trainer: Trainer, value: Any) -> list[Any]:
    """The value that each rank has, on all of them."""
    if trainer.world_size == 1:
        return [value]
    stream = io.BytesIO()
    torch.save(value, stream)
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, stream.getvalue())
    return [torch.load(io.BytesIO(data), weights_only=True) for data in gathered]


class Found(NamedTuple):
    path: Path
    step: int
    ended: bool  # whether it is the run's last
    damaged: list[CheckpointError]  # of the newer ones, which were set aside


def any_saved(folder: Path) -> bool:
    """Whether there is a checkpoint of the run in ``folder``, good or damaged."""
    return bool(_newest_first(folder / FOLDER))


def last_good(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> Found | None:
    """The newest checkpoint of a run that can be read; None when there is none at all.

    Newer ones that are damaged get the ending ``.damaged``, so that they are not counted among those to keep.

    Args:
        folder: of the run.
        weights: the state dict that the checkpoint is to fill.
        facts: what the run must agree with.

    Raises:
        CheckpointError: none of those there can be read, or the newest good one is of another model or other data.
    """
    for unfinished in (folder / FOLDER).glob(".step-*.tmp"):  # of a save that was killed
        unfinished.unlink()
    damaged: list[CheckpointError] = []
    saved = _newest_first(folder / FOLDER)
    for step, path in saved:
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            damaged.append(error)
            continue
        _check_fits(checkpoint, weights, facts, path)
        for _, bad in saved[: len(damaged)]:
            bad.rename(bad.with_suffix(".ckpt.damaged"))
        return Found(path, step, checkpoint[PROGRESS]["ended"], damaged)
    if damaged:
        raise damaged[0]
    return None


def _check_fits(
    checkpoint: dict[str, Any], weights: Mapping[str, Tensor], facts: Mapping[str, str], path: Path
) -> None:
    for name, value in checkpoint[PROGRESS]["facts"].items():
        if facts.get(name) != value:
            raise CheckpointError(
                f"it was made with {value}",
                "resume with the same data and options, or start a new run",
                file=path,
                field=name,
                value=facts.get(name),
            )
    theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    ours = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differ = [
        f"{name} is {theirs.get(name, 'missing')}, the configuration asks for {ours.get(name, 'none')}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if differ:
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise CheckpointError(
            f"weights and configuration disagree: {', '.join(differ[:4])}{more}",
            "resume with the configuration that the run began with",
            file=path,
        )


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.ckpt"


def _newest_first(folder: Path) -> list[tuple[int, Path]]:
    named = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.ckpt")]
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)
