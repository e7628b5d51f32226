"""What `finetune variants` does between reading its input and writing its folder: training, or fitting a probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning import Callback
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader

from genomamba.data.datasets import KeySampler
from genomamba.data.labels import LabelledVariant
from genomamba.data.reference import Reference
from genomamba.data.workers import begin_worker
from genomamba.model.heads import SequencePair, VariantClassifier
from genomamba.progress import progress_bar
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.probes import ProbeData, fit_probe
from genomamba.tasks.progress import TrainingProgress
from genomamba.tasks.stop_signals import StopAtOnce, StopSignals
from genomamba.tasks.trainer import make_trainer, run_fit
from genomamba.tasks.training_clock import TrainingClock
from genomamba.tasks.variants import EveryVariant, TrainingVariants, VariantTask, calibrate, collate_variants

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_variants import Config

Items = dict[str, list[LabelledVariant]]


def fit(config: Config, model: VariantClassifier, items: Items, reference: Reference, folder: Path) -> float:
    """Trains the model in place; returns the AUROC of the validation split that chose the weights."""
    every = {name: _every(config, items[name], reference) for name in ("train", "valid")}
    example = collate_variants([every["train"][0]]).pair
    finish = prepare(model, config.method, config.lora, lambda adapted: adapted(example)[0])
    variants, labels = [item.variant for item in items["train"]], [item.label for item in items["train"]]
    steps = config.epochs * -(-len(labels) // config.batch_size)
    training = DataLoader(
        TrainingVariants(reference, variants, labels, config.window, config.seed),
        batch_size=config.batch_size,
        sampler=KeySampler(len(labels), shuffle_seed=config.seed),
        collate_fn=collate_variants,
        num_workers=config.workers,
        worker_init_fn=begin_worker,
        persistent_workers=config.workers > 0,
    )
    validation = DataLoader(
        every["valid"],
        batch_size=config.batch_size,
        collate_fn=collate_variants,
        num_workers=config.workers,
        worker_init_fn=begin_worker,
        persistent_workers=config.workers > 0,
    )
    clock = TrainingClock(None if config.max_minutes is None else 60 * config.max_minutes)
    task = VariantTask(
        model,
        config.optimizer,
        steps,
        positive_weight=class_weights(config, labels)[1],
        patience=config.patience,
        frozen=config.method == "head",
        clock=clock.gone,
    )
    stop = StopSignals()
    callbacks: list[Callback] = [
        TrainingProgress("fine-tuning", steps, bases_per_step=2 * config.window * config.batch_size),
        StopAtOnce(stop),
        clock,
    ]
    trainer = make_trainer(
        folder,
        steps=steps,
        clip=config.optimizer.clip,
        device=config.device,
        precision=config.precision,
        callbacks=callbacks,
    )
    with stop:
        run_fit(trainer, task, training, validation)
    finish()
    return task.best_auroc


def fit_frozen(
    config: Config, model: VariantClassifier, items: Items, reference: Reference, device: torch.device
) -> float:
    """Fits a probe and puts it in the place of the model's head; returns its AUROC on the validation split."""
    train, valid = (
        ProbeData(*features(config, model, items[name], reference, device, name)) for name in ("train", "valid")
    )
    weights = np.array(class_weights(config, train.target.tolist()))
    model.use_head(fit_probe(config.probe, train, valid, weights=weights, seed=config.seed))
    with torch.inference_mode():
        answers = model.head.to("cpu")(valid.features.flatten(0, 1))[:, -1]
        logits = answers.view(valid.features.shape[:2]).mean(1)
    calibrate(model.cpu(), logits, valid.target)
    return float(roc_auc_score(valid.target.numpy(), logits.numpy()))


def class_weights(config: Config, labels: list[int]) -> tuple[float, float]:
    """What a variant of class 0 and one of class 1 count in training."""
    if config.class_weights == "none":
        return 1.0, 1.0
    positive = sum(labels)
    return 1.0, (len(labels) - positive) / positive


@torch.inference_mode()
def features(
    config: Config,
    model: VariantClassifier,
    items: list[LabelledVariant],
    reference: Reference,
    device: torch.device,
    what: str,
) -> tuple[Tensor, Tensor]:
    """What the head sees, (V, S, F), fp32, and labels, (V,), both on the CPU."""
    model.to(device).eval()
    loader = DataLoader(
        _every(config, items, reference),
        batch_size=config.batch_size,
        collate_fn=collate_variants,
        num_workers=config.workers,
        worker_init_fn=begin_worker,
    )
    found, labels = [], []
    with progress_bar() as bar:
        for batch in bar.track(loader, len(loader), task_id=bar.add_task("features", note=f"of {what}")):
            pair = SequencePair(*(tensor.to(device) for tensor in batch.pair))
            found.append(model.features(pair)[0].cpu())
            labels.append(batch.label)
    return torch.cat(found), torch.cat(labels).long()


def _every(config: Config, items: list[LabelledVariant], reference: Reference) -> EveryVariant:
    return EveryVariant(reference, [item.variant for item in items], [item.label for item in items], config.window)
