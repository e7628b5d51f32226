"""What made a model, and the window that it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

from genomamba.errors import CheckpointError
from genomamba.model.folder import PROVENANCE


def read_provenance(folder: str) -> dict:
    """What made the model in ``folder``.

    Raises:
        CheckpointError: the file is missing or no JSON.
    """
    path = Path(folder) / PROVENANCE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"it cannot be read ({error})", "give a whole run folder", file=path) from error
    if not isinstance(found, dict):
        raise CheckpointError("it is not what a training command writes", "give a whole run folder", file=path)
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
