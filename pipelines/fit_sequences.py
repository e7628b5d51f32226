"""What `finetune sequences` does between reading its input and writing its folder: training, or fitting a probe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from genomamba.data.sequence_splits import SequenceSplits, number
from genomamba.data.sequences import LabelledSequence
from genomamba.errors import LabelError
from genomamba.model.sequence_heads import SequenceModel
from genomamba.pipelines.fit_loop import (
    VALIDATION_TOKENS,
    Stopped,
    fit_task,
    loader,
    made_with,
    steps_of,
    training_clock,
)
from genomamba.scoring.sequences import SequenceScorer, stack_ids
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.probes import ProbeData, fit_probe
from genomamba.tasks.sequences import (
    EverySequence,
    SequenceTask,
    TrainingSequences,
    as_it_is,
    calibrate_sequences,
    validation_figures,
)

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_sequences import Config


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


def fit(
    config: Config,
    model: SequenceModel,
    splits: SequenceSplits,
    source: str,
    folder: Path,
    pretrained: dict[str, str] | None,
) -> tuple[dict[str, Any], Stopped | None]:
    """Trains the model in place; returns the figures of the dev split that chose the weights.

    Raises:
        InterruptedTraining: a signal came before anything was validated, or Ctrl-C twice.
    """
    example = stack_ids([item.ids for item in splits.train[:2]])
    finish = prepare(model, config.method, config.lora, lambda adapted: adapted(*example))
    training = TrainingSequences(
        [item.ids for item in splits.train],
        targets(model, splits.train, source),
        config.augment,
        either_strand=config.head.strands == "both" or config.augment.other_strand,
        seed=config.seed,
    )
    validation = EverySequence([item.ids for item in splits.dev], targets(model, splits.dev, source))
    clock = training_clock(config)
    task = SequenceTask(
        model,
        config.optimizer,
        steps_of(config, len(splits.train)),
        smoothing=config.smoothing,
        average=config.average,
        patience=config.patience,
        frozen=config.method == "head",
        clock=clock.gone,
        cuda_graph=config.cuda_graph,
    )
    longest = max(item.ids.size for item in splits.dev)
    at_once = max(config.batch_size, VALIDATION_TOKENS // longest)
    stopped = fit_task(
        task,
        training,
        loader(config, dataset=validation, batch_size=at_once, collate_fn=as_it_is),
        options=config,
        examples=len(splits.train),
        collate=as_it_is,
        clock=clock,
        folder=folder,
        bases_per_step=max(item.ids.size for item in splits.train) * config.batch_size,
        facts=made_with(pretrained, sequences=_shown(splits)),
    )
    finish()
    return task.best, stopped


def _shown(splits: SequenceSplits) -> Iterator[bytes]:
    """What is trained and validated on, a sequence at a time."""
    for name in ("train", "dev"):
        for item in getattr(splits, name):
            yield f"{name} {item.label} ".encode() + item.ids.tobytes()


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
