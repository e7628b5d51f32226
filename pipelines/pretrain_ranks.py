"""The part of `pretrain` that every process of a run does: data, model, training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning import Callback, Trainer, seed_everything

from genomamba.data.datamodule import ReferenceWindows
from genomamba.data.references import References
from genomamba.model.backbone import MaskedLM
from genomamba.pipelines.initial_model import initial_model, kept_origin
from genomamba.pipelines.open_reference import open_reference
from genomamba.pipelines.pretraining_splits import Splits, mixture, pretraining_splits
from genomamba.tasks.checkpoints import Checkpoints, Found
from genomamba.tasks.pretrain import MaskedPretrainTask, PretrainTask
from genomamba.tasks.progress import TrainingProgress
from genomamba.tasks.ranks import own_rank
from genomamba.tasks.step_log import StepLog
from genomamba.tasks.stop_signals import StopSignals
from genomamba.tasks.trainer import make_trainer, run_fit
from genomamba.tasks.training_clock import TrainingClock
from genomamba.tasks.validation_table import ValidationTable

if TYPE_CHECKING:
    from genomamba.pipelines.pretrain import Config

DEFAULT_STEPS = 1000


class Prepared(NamedTuple):
    genome: References
    splits: Splits
    windows: ReferenceWindows
    task: PretrainTask


def prepare(config: Config) -> Prepared:
    """Opens the reference, splits it, and makes the model; raises as these do."""
    genome = References([open_reference(path, rna=config.rna) for path in config.reference])
    splits = pretraining_splits(config, genome)
    seed_everything(config.seed, verbose=False)
    windows = ReferenceWindows(
        genome,
        splits.include,
        splits.valid,
        splits.test,
        window=config.window,
        batch_size=config.batch_size,
        micro_batch=micro_batch(config),
        steps=config.steps or DEFAULT_STEPS,
        steps_per_epoch=config.validate_every,
        seed=config.seed,
        both_strands=config.both_strands,
        softmask_weight=config.softmask_weight,
        max_n=config.max_n_frac,
        mixture=mixture(config, genome),
        pack=config.objective == "causal",  # a model that looks both ways has no resets
        workers=config.workers,
        stride=config.stride,
        jitter=config.jitter,
        first_window=config.first_window,
        short_share=config.short_share,
    )
    return Prepared(genome, splits, windows, make_task(config))


def micro_batch(config: Config) -> int:
    """Windows that a device computes at once."""
    return config.batch_size // (config.accumulate * config.devices)


def make_task(config: Config) -> PretrainTask:
    """The model with its initial weights, and its loss."""
    sizes: dict[str, Any] = {
        "batch_size": micro_batch(config),
        "window": config.window,
        "accumulate": config.accumulate,
        "cuda_graph": config.cuda_graph,
    }
    steps = config.steps or DEFAULT_STEPS
    model = initial_model(config)
    if isinstance(model, MaskedLM):
        task: PretrainTask = MaskedPretrainTask(
            model, config.optimizer, steps, masking=config.masking, seed=config.seed, **sizes
        )
    else:
        task = PretrainTask(model, config.optimizer, steps, **sizes)
    model.backbone.activation_checkpointing = config.activation_checkpointing
    return task


def made_with(genome: References, origin: Mapping[str, str] | None) -> dict[str, str]:
    """What a resumed run must agree with: the genome's content and that of the weights that it started from, if any."""
    return {"reference": genome.fingerprint, **({} if origin is None else {"init": origin["weights"]})}


def fit(
    config: Config, prepared: Prepared, folder: Path, found: Found | None, stop: StopSignals
) -> tuple[Trainer, Checkpoints]:
    """Trains from ``found`` on, or from the beginning; every rank calls this."""
    assert config.steps is not None
    rank, validates = own_rank(), bool(len(prepared.windows.validation))  # of N alone it would be nothing
    resumed_at = 0 if found is None else found.step
    steps = found.step if found is not None and found.ended else config.steps
    prepared.task.steps = prepared.windows.steps = config.steps
    if rank:
        torch.manual_seed(config.seed + (rank << 32))  # each drops other channels
    checkpoints = Checkpoints(
        folder,
        every=config.checkpoint_every or config.validate_every,
        validate_every=config.validate_every if validates else None,
        keep=config.keep,
        monitor="valid_bits_per_base",
        facts=made_with(prepared.genome, kept_origin(folder)),
        stop=stop,
    )
    bar = TrainingProgress("pretraining", steps, config.window * config.batch_size)
    log: list[Callback] = [StepLog(folder, before=resumed_at, rank=rank)] if config.step_log else []
    if validates and not rank:
        log.append(ValidationTable(folder, prepared.windows.validation.contigs, before=resumed_at))
    clock = TrainingClock(60 * config.max_minutes if config.max_minutes else None)
    trainer = make_trainer(
        folder,
        steps=steps,
        clip=config.optimizer.clip,
        accumulate=config.accumulate,
        device=config.device,
        precision=config.precision,
        callbacks=[*([] if rank else [bar]), *log, checkpoints, clock],
        validate_every=config.validate_every,
        validate=validates,
        resumed_at=resumed_at,
        devices=config.devices,
        sharing=config.strategy,
        also_log=config.also_log,
    )
    path = None if found is None else found.path
    run_fit(trainer, prepared.task, datamodule=prepared.windows, ckpt_path=path, weights_only=True)
    return trainer, checkpoints


def follow(config: Config, folder: Path, found: Found | None) -> None:
    """What the ranks after the first do."""
    fit(config, prepare(config), folder, found, StopSignals())
