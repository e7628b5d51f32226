"""What `finetune variants` does between reading its input and writing its folder: training, or fitting a probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader

from genomamba.data.labels import LabelledVariant
from genomamba.data.reference import Reference
from genomamba.data.workers import begin_worker
from genomamba.model.heads import SequencePair, VariantClassifier
from genomamba.pipelines.fit_loop import loader, made_with, run_steps, steps_of, training_clock
from genomamba.progress import progress_bar
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.probes import ProbeData, fit_probe
from genomamba.tasks.variants import EveryVariant, TrainingVariants, VariantTask, calibrate, collate_variants

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_variants import Config

Items = dict[str, list[LabelledVariant]]


def fit(
    config: Config,
    model: VariantClassifier,
    items: Items,
    reference: Reference,
    folder: Path,
    pretrained: dict[str, str] | None,
) -> float:
    """Trains the model in place; returns the AUROC of the validation split that chose the weights."""
    every = {name: _every(config, items[name], reference) for name in ("train", "valid")}
    example = collate_variants([every["train"][0]]).pair
    finish = prepare(model, config.method, config.lora, lambda adapted: adapted(example)[0])
    variants, labels = [item.variant for item in items["train"]], [item.label for item in items["train"]]
    training = TrainingVariants(reference, variants, labels, config.window, config.seed)
    clock = training_clock(config)
    task = VariantTask(
        model,
        config.optimizer,
        steps_of(config, len(labels)),
        positive_weight=class_weights(config, labels)[1],
        patience=config.patience,
        frozen=config.method == "head",
        clock=clock.gone,
    )
    shown = (f"{name} {item.variant} {item.label}".encode() for name in every for item in items[name])
    run_steps(
        task,
        training,
        loader(config, dataset=every["valid"], batch_size=config.batch_size, collate_fn=collate_variants),
        options=config,
        examples=len(labels),
        collate=collate_variants,
        clock=clock,
        folder=folder,
        bases_per_step=2 * config.window * config.batch_size,
        facts=made_with(pretrained, reference=[reference.fingerprint.encode()], variants=shown),
    )
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
