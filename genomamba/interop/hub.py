"""Checkpoints by their name on the Hugging Face hub; needs no torch."""

from __future__ import annotations

import importlib.util
import re
from os import PathLike
from pathlib import Path

from genomamba.errors import CheckpointError
from genomamba.model.pretrained import nearest_name

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_source(source: str | PathLike[str]) -> None:
    """Whether ``source`` is there, or is a name that the hub can be asked about.

    Raises:
        CheckpointError: it is neither, or the hub's package is missing.
    """
    if Path(source).exists():
        return
    if name := nearest_name(source):
        raise CheckpointError("there is no such folder or file", f"the nearest name of a model is {name}", file=source)
    if not NAME.fullmatch(str(source)):
        raise CheckpointError("it is missing", "give a checkpoint's folder or file", file=source)
    if (folder := Path(source).parent).is_dir():  # a path with a typing error, more likely than a name
        raise CheckpointError(
            f"it is missing, and as {folder} is a folder here the Hugging Face hub is not asked",
            "give a checkpoint's folder or file",
            file=source,
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(
            "no such path, and the Hugging Face hub needs a package",
            "give a local folder, or install genomamba[hf]",
            value=source,
            field="checkpoint",
        )


def download(name: str, patterns: list[str]) -> Path:
    """The folder of the files of ``name`` that match ``patterns``, once they are here.

    Raises:
        CheckpointError: the hub did not give them.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # whatever the network, the hub or its client come up with
        raise CheckpointError(
            f"no such path, and the Hugging Face hub did not give it ({first_line(error)})",
            "check the name and the network, or give a local folder",
            field="checkpoint",
            value=name,
        ) from error


def first_line(error: Exception) -> str:
    """What an error of others says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
