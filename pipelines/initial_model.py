"""Training that goes on from the weights of another model, instead of random ones."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from genomamba.errors import CheckpointError, ConfigError
from genomamba.interop.loading import load_any_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import weights_fingerprint
from genomamba.model.pretrained import located
from genomamba.pipelines.shipped import model_folder

if TYPE_CHECKING:
    from genomamba.pipelines.pretrain import Config

AnyConfig = TypeVar("AnyConfig", bound="Config")


def with_initial_model(config: AnyConfig) -> AnyConfig:
    """The configuration with the architecture of the model that ``--init`` names, if it names one.

    Raises:
        CheckpointError: the model cannot be read, or is not of the objective that is to be trained.
        ConfigError: another architecture is asked for.
    """
    if config.init is None:
        return config
    folder = model_folder(config.init)
    model = load_any_model(folder)
    if not isinstance(model, CausalLM if config.objective == "causal" else MaskedLM):
        raise CheckpointError(
            f"it is no {config.objective} language model", "give another --init or --objective", file=folder
        )
    if config.model not in (ModelConfig(), model.config):
        raise ConfigError("the model of --init has its own", "leave out one of them", field="model")
    return replace(config, model=model.config)


def initial_model(config: Config) -> CausalLM | MaskedLM:
    """With the weights of ``--init``, or random ones; ``config`` is as `with_initial_model` gives it."""
    if config.init is None:
        return CausalLM(config.model) if config.objective == "causal" else MaskedLM(config.model)
    model = load_any_model(config.init)
    assert isinstance(model, CausalLM | MaskedLM)
    return model.train()


def origin(config: Config) -> dict[str, str] | None:
    """Where the weights come from, for the provenance; None where they are random."""
    if config.init is None:
        return None
    folder = located(config.init)
    known = {"weights": weights_fingerprint(folder)} if os.path.isdir(folder) else {}
    return {"path": os.path.abspath(folder), **known}
