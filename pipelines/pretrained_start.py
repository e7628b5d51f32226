"""What fine-tuning starts from: a pretrained language model, or random weights."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

from genomamba.errors import CheckpointError, ConfigError
from genomamba.genome.alphabet import VOCAB_SIZE
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import initialise_backbone, load_model, weights_fingerprint
from genomamba.model.sequence_heads import SequenceModel, TokenModel
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Method

Model = TypeVar("Model", SequenceModel, TokenModel)


class StartOptions(Protocol):
    """The options that say so."""

    @property
    def model(self) -> str | None: ...
    @property
    def method(self) -> Method: ...
    @property
    def architecture(self) -> ModelConfig: ...
    @property
    def resume(self) -> bool: ...
    @property
    def force(self) -> bool: ...


class DropoutOptions(StartOptions, Protocol):
    """Where the pretrained model's dropout may be another than it was trained with."""

    @property
    def dropout(self) -> float | None: ...


def check_start(options: StartOptions) -> None:
    """Raises ConfigError where pretrained weights, architecture, method, --resume and --force do not go together."""
    if options.model is None and options.method != "full":
        raise ConfigError(
            "without a pretrained model there is nothing to keep",
            "give -m, such as -m shipped",
            field="method",
            value=options.method,
        )
    if options.model is not None and options.architecture != ModelConfig():
        raise ConfigError("a pretrained model has its own", "leave out -m to train from scratch", field="architecture")
    if options.resume and options.force:
        raise ConfigError("--resume keeps the run folder and --force removes it", "give one of them", field="resume")
    options.architecture.check_vocabulary(VOCAB_SIZE)


def say_scratch() -> None:
    """For whoever forgot -m."""
    print("no -m: the model is trained from scratch; -m shipped begins with the one that ships", file=sys.stderr)


def load_pretrained(given: str) -> tuple[CausalLM | MaskedLM, dict[str, str]]:
    """The model that -m means, and for the provenance where it lies and what its weights are.

    Raises:
        CheckpointError: it is no language model, or cannot be read.
    """
    folder = model_folder(given)
    model = load_model(folder)
    if not isinstance(model, CausalLM | MaskedLM):
        raise CheckpointError("it is no language model", "give a run folder of `pretrain`", file=given)
    return model, {"path": os.path.abspath(folder), "weights": weights_fingerprint(folder)}


def started(options: DropoutOptions, make: Callable[[ModelConfig], Model]) -> tuple[Model, dict[str, str] | None]:
    """The model before training, and where its weights come from, which is None where they are random.

    Args:
        options: what to start from.
        make: a model of an architecture, with a head of its own.

    Raises:
        CheckpointError: see `load_pretrained`.
    """
    if options.model is None:
        say_scratch()
        return make(options.architecture), None
    pretrained, source = load_pretrained(options.model)
    architecture = pretrained.config
    if options.dropout is not None:
        architecture = dataclasses.replace(architecture, dropout=options.dropout)
    model = make(architecture)
    initialise_backbone(model, pretrained)
    return model, source
