"""What `finetune sequences` does between reading its input and writing its folder: training, or fitting a probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from genomamba.data.datasets import KeySampler
from genomamba.data.sequence_splits import SequenceSplits, number
from genomamba.data.sequences import LabelledSequence
from genomamba.data.workers import begin_worker
from genomamba.errors import LabelError
from genomamba.model.sequence_heads import SequenceModel
from genomamba.scoring.sequences import SequenceScorer, stack_ids
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.pretrain import NonFiniteLossError
from genomamba.tasks.probes import ProbeData, fit_probe
from genomamba.tasks.progress import TrainingProgress
from genomamba.tasks.sequences import (
    EverySequence,
    SequenceBatch,
    SequenceTask,
    TrainingSequences,
    as_it_is,
    calibrate_sequences,
    validation_figures,
)
from genomamba.tasks.stop_signals import StopAtOnce, StoppedTraining, StopSignals
from genomamba.tasks.trainer import make_trainer, run_fit
from genomamba.tasks.training_clock import TrainingClock

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_sequences import Config


# A batch without gradients is fast from about so many tokens on, and still small.
VALIDATION_TOKENS = 1 << 15


def set_scales(model: SequenceModel, train: list[LabelledSequence], config: Config, source: str) -> NDArray | None:
    """Gives the model its class weights, or the mean and spread of its values; returns the former.

    Raises:
        LabelError: all values are equal.
    """
    if model.is_regression:
        values = np.array([number(item, source) for item in train])
        if np.ptp(values) == 0:
            raise LabelError("all values of train are equal", "give values that differ", file=source, field="label")
        model.center.fill_(values.mean())
        model.scale.fill_(values.std())
        return None
    counts = np.array([sum(item.label == name for item in train) for name in model.classes])
    weights = np.ones(len(counts)) if config.class_weights == "none" else len(train) / (len(counts) * counts)
    model.log_weight.copy_(torch.from_numpy(np.log(weights)))
    return weights


def targets(model: SequenceModel, items: list[LabelledSequence], source: str) -> torch.Tensor:
    """(N,): numbers of classes, or standardised values."""
    if model.is_regression:
        values = torch.tensor([number(item, source) for item in items])
        return (values - float(model.center)) / float(model.scale)
    place = {name: index for index, name in enumerate(model.classes)}
    return torch.tensor([place[item.label] for item in items])


class Stopped:
    """A signal ended training after something had been validated."""

    def __init__(self, error: StoppedTraining) -> None:
        self.how = str(error).partition(";")[0]
        self.exit_code = error.exit_code


def fit(
    config: Config, model: SequenceModel, splits: SequenceSplits, source: str, folder: Path
) -> tuple[dict[str, Any], Stopped | None]:
    """Trains the model in place; returns the figures of the dev split that chose the weights.

    Raises:
        StoppedTraining: a signal came before anything was validated.
    """
    example = stack_ids([item.ids for item in splits.train[:2]])
    finish = prepare(model, config.method, config.lora, lambda adapted: adapted(*example))
    steps = config.epochs * -(-len(splits.train) // config.batch_size)
    training = TrainingSequences(
        [item.ids for item in splits.train],
        targets(model, splits.train, source),
        config.augment,
        either_strand=config.head.strands == "both" or config.augment.other_strand,
        seed=config.seed,
    )
    validation = EverySequence([item.ids for item in splits.dev], targets(model, splits.dev, source))
    clock = TrainingClock(None if config.max_minutes is None else 60 * config.max_minutes)
    task = SequenceTask(
        model,
        config.optimizer,
        steps,
        smoothing=config.smoothing,
        average=config.average,
        patience=config.patience,
        frozen=config.method == "head",
        clock=clock.gone,
        cuda_graph=config.cuda_graph,
    )
    longest = max(item.ids.size for item in splits.train)
    stop = StopSignals()
    bar = TrainingProgress("fine-tuning", steps, longest * config.batch_size)
    callbacks: list[Callback] = [bar, StopAtOnce(stop), clock]
    trainer = make_trainer(
        folder,
        steps=steps,
        clip=config.optimizer.clip,
        device=config.device,
        precision=config.precision,
        callbacks=callbacks,
    )
    sampler = KeySampler(len(splits.train), shuffle_seed=config.seed)
    training_loader = _loader(config, training, config.batch_size, sampler)
    longest = max(item.ids.size for item in splits.dev)
    validation_loader = _loader(config, validation, max(config.batch_size, VALIDATION_TOKENS // longest), None)
    stopped = None
    try:
        with stop:
            run_fit(trainer, task, training_loader, validation_loader)
    except StoppedTraining as error:
        if not task.best:
            raise
        stopped = Stopped(error)
    _take_best(task)
    finish()
    return task.best, stopped


def _loader(
    config: Config, data: Dataset[SequenceBatch], batch_size: int, sampler: Sampler | None
) -> DataLoader[SequenceBatch]:
    return DataLoader(
        data,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=as_it_is,
        num_workers=config.workers,
        worker_init_fn=begin_worker,
        persistent_workers=config.workers > 0,
    )


def _take_best(task: SequenceTask) -> None:

    if not task.take_best():
        raise NonFiniteLossError("no validation gave a finite loss; lower optimizer.lr")


def fit_frozen(
    config: Config,
    model: SequenceModel,
    splits: SequenceSplits,
    weights: NDArray | None,
    source: str,
    device: torch.device,
) -> dict[str, Any]:
    """Fits a probe and puts it in the place of the model's head; returns its figures on dev."""
    scorer = SequenceScorer(model, batch_size=config.batch_size, device=device)
    train, dev = (
        ProbeData(scorer.features([item.ids for item in items]), targets(model, items, source))
        for items in (splits.train, splits.dev)
    )
    model.use_head(fit_probe(config.probe, train, dev, weights=weights, seed=config.seed))
    model.to(device)
    unweighted = scorer.outputs([item.ids for item in splits.dev]) - model.log_weight.cpu()
    if not model.is_regression:
        calibrate_sequences(model, unweighted, dev.target)
    return validation_figures(unweighted, dev.target, is_regression=model.is_regression)
