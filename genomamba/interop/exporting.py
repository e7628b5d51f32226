"""From a model of ours to a checkpoint that an original reads."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.interop.checkpoint import CONFIG, WEIGHTS
from genomamba.interop.dialects import DIALECTS, Dialect

SAFETENSORS, PICKLED = WEIGHTS


def export_model(model: nn.Module, folder: str | PathLike[str], to: str) -> Path:
    """Writes config.json and the weights as the original would.

    Args:
        model: a language model of ours.
        folder: created when missing.
        to: ``state-spaces`` (pytorch_model.bin, which is what its loader reads), ``caduceus`` or ``transformers``
            (model.safetensors).

    Returns:
        The file of weights.

    Raises:
        CheckpointError: the original has no such model; the message says what it lacks.
    """
    dialect = DIALECTS[to]
    lacks = _lacks(model, dialect)
    if lacks is not None:
        raise CheckpointError(
            f"{dialect.name} has no such model: {lacks}",
            "keep it as it is, or choose another --to",
            field="to",
            value=to,
        )
    assert isinstance(model, dialect.model)
    config = model.config
    own = {dialect.their_name(name, config): t.detach().cpu().float() for name, t in model.state_dict().items()}
    repeated = dialect.repeated(config)
    weights = {name: t.contiguous() for name, t in own.items() if name not in repeated} | dialect.constants(config)
    if to != "transformers":  # which leaves out what is tied
        weights |= {name: weights[other].clone() for name, other in repeated.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (PICKLED if to == "state-spaces" else SAFETENSORS)
    with whole_file(target) as path:
        if to == "state-spaces":
            torch.save(weights, path)
        else:
            safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    with whole_file(folder / CONFIG) as path:
        path.write_text(json.dumps(dialect.export_config(config), indent=2) + "\n", encoding="utf-8")
    return target


def _lacks(model: nn.Module, dialect: Dialect) -> str | None:
    if not isinstance(model, dialect.model):
        return f"it is of {dialect.model.__name__}, this is a {type(model).__name__}"
    return dialect.unexportable(model.config)
