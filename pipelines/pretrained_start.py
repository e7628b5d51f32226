"""What fine-tuning starts from: a pretrained language model, or random weights."""

from __future__ import annotations

import os
from typing import Protocol

from genomamba.errors import CheckpointError, ConfigError
from genomamba.genome.alphabet import VOCAB_SIZE
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import load_model, weights_fingerprint
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Method


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
