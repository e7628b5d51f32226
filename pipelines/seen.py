"""What a classifier was trained and calibrated on, as hashes in its folder: the same for a sequence's other strand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genomamba.errors import CheckpointError
from genomamba.files import whole_file

SEEN = "seen.npy"


def save_seen(folder: Path, keys: NDArray[np.uint64]) -> None:
    """Writes what the model was trained and calibrated on, as hashes."""
    with whole_file(folder / SEEN) as path:
        buffer = io.BytesIO()
        np.save(buffer, keys, allow_pickle=False)
        path.write_bytes(buffer.getvalue())


def load_seen(folder: str) -> NDArray[np.uint64]:
    """What `save_seen` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = Path(folder) / SEEN
    try:
        keys = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"it cannot be read ({error})", "give a whole run folder", file=path) from error
    if keys.dtype != np.uint64 or keys.ndim != 1:
        raise CheckpointError("it holds no hashes", "give a whole run folder", file=path)
    return keys
