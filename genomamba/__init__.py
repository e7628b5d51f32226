"""GenoMamba: character-level Mamba models for genomes."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genomamba.kernels.impl import Impl
    from genomamba.model.folder import AnyModel

__version__ = "0.1.0"


def load_model(path: str | PathLike[str], *, impl: Impl = "auto") -> AnyModel:
    """Opens a model; torch is imported when this is called.

    Args:
        path: a folder that a command here wrote, or a checkpoint of state-spaces/mamba, Caduceus or transformers:
            a folder, a .safetensors or .bin file, or its name on the Hugging Face hub; ``shipped`` is the language
            model that comes with the package.
        impl: who computes the scans, as in `genomamba.kernels.selective_scan`.

    Returns:
        The model on the CPU, in fp32, in eval mode.

    Raises:
        CheckpointError: it is missing, cut, of an unknown kind, or configuration and weights disagree.
    """
    from genomamba.interop.loading import load_any_model

    return load_any_model(path, impl=impl)
