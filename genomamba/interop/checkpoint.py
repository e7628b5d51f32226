"""Someone else's checkpoint as it lies on disk: a configuration, if there is one, and named tensors.

Nothing in it is executed: weights are safetensors, or opened by torch with ``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from genomamba.errors import CheckpointError
from genomamba.interop.hub import check_source, download, first_line

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDICES = tuple(f"{name}.index.json" for name in WEIGHTS)


class Checkpoint(NamedTuple):
    config: dict[str, Any] | None  # in the original's words; None where there is only a state dict
    weights: dict[str, Tensor]  # without keys that begin with "__"
    path: Path  # the file of weights, or the folder of several


def read_checkpoint(source: str | PathLike[str], config: str | PathLike[str] | None = None) -> Checkpoint:
    """Reads a folder (config.json and model.safetensors or pytorch_model.bin, sharded or not), or one file.

    Args:
        source: the folder, or a .safetensors, .bin, .pt or .pth file; where no such path exists, ``owner/name``
            is looked up on the Hugging Face hub.
        config: the original's configuration, JSON; None looks for config.json in the folder, and for
            ``x.json`` or else config.json beside the file ``x.safetensors``.

    Raises:
        CheckpointError: nothing is there, it is cut, of another kind, or holds more than tensors.
    """
    check_source(source)
    path = Path(source)
    if not path.exists():
        path = download(str(source), [CONFIG, "*.safetensors", "*.bin", "*.index.json"])
    if config is not None and not Path(config).is_file():
        raise CheckpointError("it is missing", "give the original's configuration", file=config)
    if path.is_file():
        beside = next((p for p in (path.with_suffix(".json"), path.with_name(CONFIG)) if p.is_file()), None)
        said = config if config is not None else beside
        return Checkpoint(None if said is None else _read_config(Path(said)), _own(_read_weights(path)), path)
    if not path.is_dir():
        raise CheckpointError("it is neither file nor folder", "give a checkpoint's folder or file", file=path)
    values = _read_config(Path(config) if config is not None else path / CONFIG)
    for name in WEIGHTS:
        if (path / name).is_file():
            return Checkpoint(values, _own(_read_weights(path / name)), path / name)
    for name in INDICES:
        if (path / name).is_file():
            return Checkpoint(values, _own(_read_shards(path / name)), path)
    expected = ", ".join((*WEIGHTS, *INDICES))
    raise CheckpointError(f"it holds none of {expected}", "give a checkpoint's folder or file", file=path)


def _own(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith("__")}


def _read_config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"it is not JSON ({error})", "restore the file", file=path) from error
    if not isinstance(config, dict):
        raise CheckpointError("it is not a configuration", "restore the file", file=path)
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(
            f"it is cut or no file of weights ({first_line(error)})", "restore the file", file=path
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it is damaged, or holds more than tensors, which could execute anything", "ask for safetensors", file=path
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError("it is no state dict", "save model.state_dict() and nothing else", file=path)
    return weights


def _read_shards(index: Path) -> dict[str, Tensor]:
    listed = (_read_config(index) or {}).get("weight_map")
    if not isinstance(listed, dict):
        raise CheckpointError("it has no weight_map", "restore the file", file=index)
    weights: dict[str, Tensor] = {}
    for name in sorted(set(listed.values())):
        shard = index.parent / name
        if shard.parent != index.parent:
            raise CheckpointError("a shard lies outside the folder", "restore the file", file=index, value=name)
        weights |= _read_weights(shard)
    absent = sorted(listed.keys() - weights.keys())
    if absent:
        raise CheckpointError(f"its shards lack {', '.join(absent[:4])}", "restore the files", file=index)
    return weights
