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
from genomamba.errors import ConfigError, OutputError
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


def resume_run(folder: str, config: Any, free: frozenset[str]) -> Path:
    """The folder of a run that was begun with the same configuration; a new run where there is none.

    Args:
        folder: of the run.
        config: of the command that goes on.
        free: names of options that may differ.

    Raises:
        ConfigError: another option differs.
        OutputError: the folder is not a run of ours, or cannot be made.
    """
    path = Path(folder)
    if not path.is_dir() or not any(path.iterdir()):
        return start_run(folder, config, force=False)
    try:
        begun = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OutputError(f"it is not a run to resume (no {CONFIG} that can be read)", "check -o", file=path) from error
    then, now = _flat(begun), _flat(dataclasses.asdict(config))
    for key in sorted(then.keys() | now.keys()):
        if key not in free and then.get(key) != now.get(key):
            raise ConfigError(
                f"the run began with {then.get(key)}",
                f"resume with `-c {path / CONFIG}`, or start a new run",
                file=path / CONFIG,
                field=key,
                value=now.get(key),
            )
    return path


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {name: leaf for key, value in tree.items() for name, leaf in _flat(value, f"{prefix}{key}.").items()}


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
