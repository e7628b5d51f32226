"""What a training command leaves beside the weights: the resolved configuration and what made the run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shutil
from pathlib import Path
from typing import Any

import yaml

from genomamba import __version__
from genomamba.errors import OutputError
from genomamba.files import whole_file

CONFIG, METRICS = "run.yaml", "metrics.csv"
_VERSIONS = ("torch", "lightning", "numpy", "numba", "scikit-learn", "pysam")


def start_run(folder: str, config: Any, *, force: bool) -> Path:
    """An empty folder with the resolved configuration in it; with ``force`` an earlier run there is removed.

    Raises:
        OutputError: it exists and is not empty, without ``force``; it is no run of ours; or it cannot be made.
    """
    path = Path(folder)
    check_free(folder, force=force)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        path.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be created ({error.strerror})", "choose another -o", file=folder
        ) from error
    with whole_file(path / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False), encoding="utf-8")
    return path


def check_free(folder: str, *, force: bool) -> None:
    """Raises OutputError where ``start_run`` would."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError("it is a file, and a folder is to be made there", "choose another -o", file=folder)
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not force:
        raise OutputError(
            "the folder exists and is not empty", "choose another -o, or pass --force to replace it", file=folder
        )
    if not (path / CONFIG).is_file():  # --force must never remove what we did not make
        raise OutputError(
            f"the folder has no {CONFIG}, so it is not a run of ours to replace", "choose another -o", file=folder
        )


def provenance(config: Any, **facts: Any) -> dict[str, Any]:
    """What made a model: the resolved configuration, versions, and the given facts (fingerprints, figures)."""
    versions = {"genomamba": __version__, "python": platform.python_version()}
    for package in _VERSIONS:
        versions[package] = importlib.metadata.version(package)
    return {"configuration": dataclasses.asdict(config), "versions": versions, **facts}
