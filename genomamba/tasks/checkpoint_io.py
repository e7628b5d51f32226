"""Training checkpoints on disk: they appear whole or not at all, and nothing in them is ever executed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.types import _PATH

from genomamba.errors import CheckpointError
from genomamba.files import whole_file

if TYPE_CHECKING:
    from typing_extensions import Buffer

PROGRESS = "genomamba_progress"
SO_FAR = "genomamba_so_far"  # what a task itself has kept of its validations
_NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", PROGRESS)
_REMEDY = "give --resume an earlier checkpoint, or train again"


class WholeCheckpointIO(CheckpointIO):
    """Writes by temporary file, fsync and rename; reads tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Raises OutputError, with the path, when the disk is full or the file too large; the old file stays."""
        with whole_file(path) as temporary, _Watched(io.FileIO(temporary, "wb")) as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                raise (stream.failure or error) from error

    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As ``read_checkpoint``, whatever ``weights_only`` says."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: _PATH) -> None:
        Path(path).unlink(missing_ok=True)


class _Watched(io.BufferedWriter):
    """Remembers why a write failed: torch's writer replaces the OSError by a RuntimeError that does not say."""

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU; every record's checksum is checked first, for torch does not.

    Raises:
        CheckpointError: it is missing, cut, damaged, not ours, or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"its record {damaged} is damaged", _REMEDY, file=path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"it is cut or damaged ({_first_line(error)})", _REMEDY, file=path) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it holds Python objects besides tensors and plain values, which are never executed",
            "resume only from checkpoints that the same command wrote",
            file=path,
        ) from error
    missing = [key for key in _NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    # Lightning would call whatever function `_instantiator` names.
    foreign = [key for key in ("hyper_parameters", "datamodule_hyper_parameters") if not missing and key in checkpoint]
    if missing or foreign:
        what = f"it lacks {', '.join(missing)}" if missing else f"it holds {', '.join(foreign)}"
        raise CheckpointError(f"it is not a checkpoint of ours: {what}", _REMEDY, file=path)
    return checkpoint


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
