"""From someone else's checkpoint to a model of ours."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch

from genomamba.errors import CheckpointError, ConfigError
from genomamba.interop import caduceus, transformers_mamba
from genomamba.interop.checkpoint import Checkpoint, read_checkpoint
from genomamba.interop.dialects import DIALECTS, Dialect
from genomamba.interop.fields import Fields, names_of, with_settings
from genomamba.kernels.selective_scan import Impl
from genomamba.model.backbone import CausalLM, MaskedLM


class Imported(NamedTuple):
    model: CausalLM | MaskedLM  # on the CPU, in fp32, in eval mode
    dialect: Dialect
    config: dict[str, Any]  # the original's configuration, as it was understood
    guessed: bool  # whether there was no config.json, so that it comes from shapes


def import_model(
    source: str | PathLike[str],
    settings: Sequence[str] = (),
    *,
    config: str | PathLike[str] | None = None,
    impl: Impl = "auto",
) -> Imported:
    """Reads a checkpoint of state-spaces/mamba, Caduceus or transformers; which it is, its tensors' names say.

    Args:
        source: a folder, a file, or a name on the Hugging Face hub; see `checkpoint.read_checkpoint`.
        settings: ``key=value`` in the words of the original's configuration, over what config.json says;
            without config.json, over what shapes say. A key that changes nothing is refused.
        config: the original's configuration where it is not config.json beside the weights.
        impl: as in `selective_scan`.

    Raises:
        CheckpointError: it cannot be read, or its tensors are not exactly those of its configuration.
    """
    checkpoint = read_checkpoint(source, config)
    dialect = dialect_of(checkpoint)
    if checkpoint.config is not None and checkpoint.config.keys() >= {"format", "task", "model"}:
        raise CheckpointError("it is a model folder of GenoMamba's already", "use it as it is", file=source)
    guessed = checkpoint.config is None
    try:
        if checkpoint.config is None:
            given = with_settings({}, settings)
            values = with_settings(dialect.guess(checkpoint.weights, given), settings)
        else:
            values = with_settings(checkpoint.config, settings)
        ours = dialect.config(Fields(values, checkpoint.path, said=names_of(settings)), checkpoint.weights)
        model = dialect.model(ours, impl)
    except CheckpointError as error:
        if error.file is not None:
            raise
        raise CheckpointError(error.problem, error.remedy, file=checkpoint.path) from error
    except ConfigError as error:  # ours, of values that the original would not accept either
        raise CheckpointError(
            error.problem, "see --set and config.json", file=checkpoint.path, field=error.field, value=error.value
        ) from error
    fill(model, checkpoint, dialect)
    return Imported(model.eval(), dialect, values, guessed)


def dialect_of(checkpoint: Checkpoint) -> Dialect:
    """Whose checkpoint it is, by its tensors' names.

    Raises:
        CheckpointError: nobody's that is known here.
    """
    names = checkpoint.weights
    if any(name.startswith(caduceus.BACKBONE) for name in names):
        embeddings = (caduceus.EMBEDDING + "embedding.weight", caduceus.EMBEDDING + "weight")
        if any(name in names for name in embeddings):
            return DIALECTS["caduceus"]
    elif transformers_mamba.EMBEDDING in names:
        return DIALECTS["transformers"]
    elif "backbone.embedding.weight" in names:
        return DIALECTS["state-spaces"]
    shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(names.items())[:4])
    raise CheckpointError(
        f"its tensors are named as in no known original: {shown}",
        f"give a language model of {', '.join(dialect.name for dialect in DIALECTS.values())}",
        file=checkpoint.path,
    )


def fill(model: CausalLM | MaskedLM, checkpoint: Checkpoint, dialect: Dialect) -> None:
    """Copies every tensor, accounting for each name.

    Raises:
        CheckpointError: tensors that are missing, left over, of other shapes, or that should repeat another.
    """
    weights, config = checkpoint.weights, model.config
    repeated, constants = dialect.repeated(config), dialect.constants(config)
    own = {dialect.their_name(name, config): tensor for name, tensor in model.state_dict().items()}
    own = {name: tensor for name, tensor in own.items() if name not in repeated}
    known = own.keys() | repeated.keys() | constants.keys()
    wrong = [f"missing {name} {tuple(own[name].shape)}" for name in sorted(own.keys() - weights.keys())]
    wrong += [f"left over {name} {tuple(weights[name].shape)}" for name in sorted(weights.keys() - known)]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, the configuration asks for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    if not wrong:
        wrong += [
            f"{name} {tuple(weights[name].shape)} differs from {other}, which it is tied to"
            for name, other in sorted(repeated.items())
            if name in weights and not torch.equal(weights[name], weights[other])
        ]
        wrong += [
            f"{name} {tuple(weights[name].shape)} is not what the configuration says"
            for name, tensor in sorted(constants.items())
            if name in weights and not torch.equal(weights[name], tensor)
        ]
    if wrong:
        shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise CheckpointError(
            f"its tensors are not those of its configuration: {shown}",
            "give the config.json of these weights, or correct it with --set",
            file=checkpoint.path,
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
