"""The human data that ships with the package; README.md beside this says what it is and where it comes from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, get_args

Name = Literal["reference.fa.gz", "clinvar.vcf.gz", "variants.vcf.gz"]

FILES: tuple[Name, ...] = get_args(Name)


def example_path(name: Name) -> AbstractContextManager[Path]:
    """A bundled file as a path, good for as long as the context is open; the folder may be read-only.

    Raises:
        ValueError: no such file is bundled.
    """
    if name not in FILES:
        raise ValueError(f"{name!r} is not bundled; choose from {', '.join(FILES)}")
    return as_file(files(__name__) / name)
