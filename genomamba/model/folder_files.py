"""A model folder's files, and what its config.json says; needs no torch."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from genomamba.errors import CheckpointError
from genomamba.model.config import Link
from genomamba.model.pretrained import nearest_name

CONFIG, WEIGHTS, CARD, PROVENANCE = "config.json", "model.safetensors", "README.md", "provenance.json"

#: what config.json may have as ``format``: the second where a model of tracks has a link, of which versions that know
#: only the first would take no notice
FORMATS = PLAIN, LINKED = 1, 2

#: the word for a model's kind in config.json, its ``task``
CAUSAL, MASKED, SEQUENCE, TOKEN, VARIANT = "causal_lm", "masked_lm", "sequence", "tracks", "variant_classifier"


def check_whole(folder: str | PathLike[str]) -> None:
    """Raises CheckpointError where a file is missing without which there is no model."""
    if name := nearest_name(folder):
        raise CheckpointError("there is no such folder", f"the nearest name of a model is {name}", file=folder)
    for name in (CONFIG, WEIGHTS):
        path = Path(folder) / name
        if not path.is_file():
            raise CheckpointError(
                "it is missing", "give -m a folder that `genomamba pretrain` or `finetune` wrote", file=path
            )


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """What config.json says, with its ``task`` and its ``model`` at least.

    Raises:
        CheckpointError: a file of the folder is missing, or config.json is not what this version writes.
    """
    check_whole(folder)
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "task" not in config and "format" not in config:
            raise CheckpointError(
                "it is not GenoMamba's own", "`genomamba import` makes a model folder of others' checkpoints", file=path
            )
        form, task, _ = config["format"], config["task"], config["model"]
        if not isinstance(task, str):
            raise TypeError("task must be a word")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"it is not a model configuration ({error!r})", "restore the file", file=path) from error
    if form not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise CheckpointError(
            f"this version reads formats {known}", "install a newer genomamba", file=path, field="format", value=form
        )
    return config


def track_names(config: dict[str, Any], folder: str | PathLike[str]) -> list[str]:
    """Of a model of tracks; ``config`` is as `read_config` gave it. Raises CheckpointError."""
    names = config.get("tracks")
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise CheckpointError(
            "it must list the names of tracks, each once",
            "restore the file",
            file=Path(folder) / CONFIG,
            field="tracks",
            value=names,
        )
    return [str(name) for name in names]


def track_link(config: dict[str, Any], folder: str | PathLike[str]) -> Link:
    """What a model of tracks predicts of them, see `TokenModel`; arguments and errors as of `track_names`."""
    link = config.get("link", "identity")
    if link not in get_args(Link):
        known = ", ".join(get_args(Link))
        raise CheckpointError("no such link", f"it knows {known}", file=Path(folder) / CONFIG, field="link", value=link)
    return link
