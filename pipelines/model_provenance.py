"""What made a model, and the window that it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

from genomamba.errors import CheckpointError
from genomamba.model.folder import PROVENANCE
from genomamba.pipelines.json_shape import Shape, check_shape

REMEDY = "train the model with this version"  # where a key is missing


def read_provenance(folder: str, shape: Shape = dict) -> dict:
    """What made the model in ``folder``.

    Args:
        folder: of the model.
        shape: what must stand there, as `check_shape` takes it.

    Raises:
        CheckpointError: the file is missing, no JSON, or lacks what must stand there.
    """
    path = Path(folder) / PROVENANCE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"it cannot be read ({error})", "give a whole run folder", file=path) from error
    if not isinstance(found, dict):
        raise CheckpointError("it is not what a training command writes", "give a whole run folder", file=path)
    check_shape(found, shape, path, REMEDY, error=CheckpointError)
    return found


def model_window(folder: str) -> int:
    """Bases per window, as trained.

    Raises:
        CheckpointError: the folder does not say.
    """
    window = read_provenance(folder).get("window")
    if not isinstance(window, int):
        raise CheckpointError("it names no window", "give --window", file=Path(folder) / PROVENANCE)
    return window
