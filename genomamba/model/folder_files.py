"""What a model folder's files are called, and whether they are there; needs no torch."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from genomamba.errors import CheckpointError

CONFIG, WEIGHTS, CARD, PROVENANCE = "config.json", "model.safetensors", "README.md", "provenance.json"


def check_whole(folder: str | PathLike[str]) -> None:
    """Raises CheckpointError where a file is missing without which there is no model."""
    for name in (CONFIG, WEIGHTS):
        path = Path(folder) / name
        if not path.is_file():
            raise CheckpointError(
                "it is missing", "give -m a folder that `genomamba pretrain` or `finetune` wrote", file=path
            )
