"""The originals whose checkpoints can be read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from genomamba.interop import caduceus, state_spaces, transformers_mamba
from genomamba.interop.fields import Fields
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig

Weights = Mapping[str, Tensor]


def _no_constants(model: ModelConfig) -> dict[str, Tensor]:
    return {}


class Dialect(NamedTuple):
    """How one original writes its checkpoints."""

    name: str
    guess: Callable[[Weights, Mapping[str, Any]], dict[str, Any]]  # its configuration, from shapes
    config: Callable[[Fields, Weights], ModelConfig]  # its configuration as ours
    their_name: Callable[[str, ModelConfig], str]  # our tensor's name as its
    repeated: Callable[[ModelConfig], dict[str, str]]  # its tensors that repeat another
    constants: Callable[[ModelConfig], dict[str, Tensor]]  # its tensors that our configuration holds
    unexportable: Callable[[ModelConfig], str | None]  # what it lacks for a model of ours
    export_config: Callable[[ModelConfig], dict[str, Any]]  # our configuration as its
    model: type[CausalLM] | type[MaskedLM]


DIALECTS = {
    "state-spaces": Dialect(
        "state-spaces/mamba",
        state_spaces.guess,
        state_spaces.config,
        state_spaces.their_name,
        state_spaces.repeated,
        _no_constants,
        state_spaces.unexportable,
        state_spaces.export_config,
        CausalLM,
    ),
    "caduceus": Dialect(
        "Caduceus",
        caduceus.guess,
        caduceus.config,
        caduceus.their_name,
        caduceus.repeated,
        caduceus.constants,
        caduceus.unexportable,
        caduceus.export_config,
        MaskedLM,
    ),
    "transformers": Dialect(
        "transformers",
        transformers_mamba.guess,
        transformers_mamba.config,
        transformers_mamba.their_name,
        transformers_mamba.repeated,
        _no_constants,
        transformers_mamba.unexportable,
        transformers_mamba.export_config,
        CausalLM,
    ),
}
