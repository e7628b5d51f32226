"""One door for every model: our folders and other people's checkpoints."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from genomamba.interop.importing import import_model
from genomamba.kernels.selective_scan import Impl
from genomamba.model import folder
from genomamba.model.folder import AnyModel
from genomamba.model.pretrained import located


def load_any_model(path: str | PathLike[str], *, impl: Impl = "auto") -> AnyModel:
    """The model at ``path``, whoever wrote it; see `genomamba.load_model`."""
    path = located(path)
    return folder.load_model(path, impl=impl) if _is_ours(Path(path)) else import_model(path, impl=impl).model


def _is_ours(path: Path) -> bool:
    try:
        return "format" in json.loads((path / folder.CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False  # whatever is wrong with it, the import says
