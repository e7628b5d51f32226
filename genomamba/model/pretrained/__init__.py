"""The language model that ships with the package; README.md beside this says what it is and how it was trained.

Its run folder lies beside this file, under the model's name, which ends with its version.
"""

from __future__ import annotations

import difflib
from os import PathLike
from pathlib import Path

#: says that model wherever a path to one is asked for; a folder of this name is meant by ``./shipped``
SHIPPED = "shipped"


def shipped_model(place: Path = Path(__file__).parent) -> Path:
    """Its folder, which may be read-only: of several, which only a replacement that was killed leaves, the newest."""
    return max((config.parent for config in place.glob("*/config.json")), key=version_of)


def version_of(folder: Path) -> int:
    """The version that its name ends with."""
    return int(folder.name.rpartition("-v")[2])


def located(path: str | PathLike[str]) -> Path:
    """The folder that ``path`` means: that of the model that ships for `SHIPPED`, otherwise ``path`` itself."""
    return shipped_model() if str(path) == SHIPPED else Path(path)


def nearest_name(path: str | PathLike[str]) -> str | None:
    """The word for the model that ships, where ``path``, at which nothing is, looks like a slip for it."""
    names = [SHIPPED, shipped_model().name]
    slip = not Path(path).exists() and difflib.get_close_matches(str(path).lower(), names, n=1, cutoff=0.8)
    return SHIPPED if slip else None
