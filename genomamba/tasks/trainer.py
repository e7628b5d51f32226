"""A Lightning trainer with the house's settings."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from genomamba.errors import ConfigError
from genomamba.tasks.checkpoint_io import WholeCheckpointIO
from genomamba.tasks.config import AlsoLog, Device, DeviceSharing, Precision
from genomamba.tasks.device import resolve_device
from genomamba.tasks.metrics_log import LOG_EVERY, MetricsLog
from genomamba.tasks.precision import Bf16Mixed
from genomamba.tasks.ranks import own_rank
from genomamba.tasks.strategies import make_strategy

# What Lightning says of choices that are ours.
_NOISE = (
    ".*does not have many workers",
    ".*worker processes in total",
    ".*number of training batches.*smaller than the logging interval",
    ".*no `val_dataloader`",
    r".*isinstance\(treespec, LeafSpec\)",
    "FSDP2-wrapped module .* returned a view tensor",  # nothing is done to it in place
    ".*recommended to use `self.log.*sync_dist=True",  # what is logged is the same on all ranks
)


def make_trainer(
    folder: Path,
    *,
    steps: int,
    clip: float,
    accumulate: int = 1,
    device: Device,
    precision: Precision,
    callbacks: Sequence[Callback],
    validate_every: int | None = None,
    validate: bool = True,
    resumed_at: int = 0,
    devices: int = 1,
    sharing: DeviceSharing = "auto",
    also_log: AlsoLog = "nothing",
) -> Trainer:
    """A trainer for ``steps`` optimizer steps that logs to folder/metrics.csv.

    Args:
        folder: of the run.
        steps: optimizer steps.
        clip: largest norm of the gradient.
        accumulate: micro-batches per step.
        device: where to train.
        precision: of activations; master weights are fp32.
        callbacks: what else happens.
        validate_every: steps between validations; None validates after every epoch of the loader.
        validate: whether there is anything to validate on.
        resumed_at: the step that the run goes on from; what was logged from there on is dropped.
        devices: GPUs or processes; the ranks are there already.
        sharing: of the work between them.
        also_log: where figures go besides metrics.csv.

    Raises:
        ConfigError: a GPU, or bf16 on it, was asked for and is not there.
    """
    accelerator = resolve_device(device).type
    check_precision(precision, accelerator)
    # Lightning announces itself, its tips and its devices; our commands say what matters.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    be_deterministic(accelerator)
    mixed = [Bf16Mixed(accelerator)] if precision == "bf16-mixed" else []
    return Trainer(
        accelerator="gpu" if accelerator == "cuda" else "cpu",
        devices=devices,
        strategy=make_strategy(sharing, devices, resolve_device(device)),
        precision=None if mixed else precision,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=clip,
        accumulate_grad_batches=accumulate,
        callbacks=list(callbacks),
        val_check_interval=validate_every * accumulate if validate and validate_every else 1.0,
        check_val_every_n_epoch=None if validate and validate_every else 1,
        limit_val_batches=1.0 if validate else 0,
        plugins=[WholeCheckpointIO(), *mixed],
        logger=False if own_rank() else [MetricsLog(folder, before=resumed_at), *further_loggers(also_log, folder)],
        log_every_n_steps=LOG_EVERY,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=True,
    )


def check_precision(precision: Precision, accelerator: str) -> None:
    """Raises ConfigError for bf16 on a GPU that only emulates it."""
    if (
        precision == "bf16-mixed"
        and accelerator == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError("this GPU has no bf16", "use 32-true", field="precision", value=precision)


def run_fit(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
    """``trainer.fit``, but none of its loader processes outlives it when it fails.

    Lightning then takes down the loop at work only. Where that is validation's, training's processes stay, which
    `begin_worker` has ignore what Python ends them by, so that this one would wait for them for ever.
    """
    try:
        trainer.fit(*args, **kwargs)
    except BaseException:
        trainer.fit_loop.teardown()
        raise


def further_loggers(also_log: AlsoLog, folder: Path) -> list[Logger]:
    """What ``also_log`` names, writing to the run's folder."""
    if also_log == "nothing":
        return []
    if also_log == "tensorboard":
        return [TensorBoardLogger(folder, name="tensorboard", version="")]
    return [WandbLogger(name=folder.name, save_dir=folder, project="genomamba")]


def check_installed(also_log: AlsoLog) -> None:
    """Raises ConfigError where the package that is asked for is missing."""
    if also_log != "nothing" and importlib.util.find_spec(also_log) is None:
        raise ConfigError("it is not installed", f"pip install -e '.[{also_log}]'", field="also_log", value=also_log)


def be_deterministic(accelerator: str) -> None:
    """Makes torch choose what gives the same bits each time; on a GPU it does not fill memory before it is written."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS is used, which would else refuse
    torch.use_deterministic_algorithms(True)
    if accelerator == "cuda":  # a kernel per allocation
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
