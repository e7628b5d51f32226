"""What a training command leaves beside the weights: the resolved configuration and what made the run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from genomamba import __version__
from genomamba.errors import ConfigError, OutputError
from genomamba.files import whole_file
from genomamba.model.folder_files import WEIGHTS
from genomamba.pipelines.option_values import defaults, flat

CONFIG, METRICS = "run.yaml", "metrics.csv"
CHECKPOINTS = "checkpoints"  # as `tasks.checkpoints` calls them, whose module takes seconds to import
_VERSIONS = ("torch", "lightning", "numpy", "numba", "scikit-learn", "pysam")


@contextmanager
def new_run(
    folder: str,
    config: Any,
    *,
    force: bool,
    inputs: Sequence[str | None],
    goes_on_after: type[BaseException] | None = None,
) -> Iterator[Path]:
    """An empty run folder with the resolved configuration in it.

    With ``force`` an earlier run there is set aside, removed when the new one is done, and put back when the new
    one fails. Where there was none, a new run that fails is removed, unless it has a checkpoint to resume from.

    Args:
        folder: of the run.
        config: of the command.
        force: whether to replace an earlier run.
        inputs: files and folders that the command reads; none may lie in the folder.
        goes_on_after: for a run that can be resumed, the exception that stops it in good order.

    Raises:
        OutputError: as ``check_free``, or the folder cannot be made.
    """
    check_free(folder, force=force, inputs=inputs)
    path = Path(folder)
    aside = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    had_one = path.is_dir() and any(path.iterdir())
    if had_one:
        path.rename(aside)
    try:
        yield _begin(path, config)
    except BaseException as error:
        stands = goes_on_after is not None and (isinstance(error, goes_on_after) or (not had_one and _can_go_on(path)))
        if not stands:
            shutil.rmtree(path, ignore_errors=True)
            if had_one:
                aside.rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_finished(path: Path) -> bool:
    """Whether a run that keeps no checkpoints once it is done is done."""
    return (path / WEIGHTS).is_file() and not _can_go_on(path)


def drop_checkpoints(path: Path) -> None:
    """Of a run that is done."""
    shutil.rmtree(_checkpoints(path), ignore_errors=True)


def _can_go_on(path: Path) -> bool:
    checkpoints = _checkpoints(path)
    return checkpoints.is_dir() and any(checkpoints.iterdir())


def _checkpoints(path: Path) -> Path:
    from genomamba.tasks.checkpoints import FOLDER

    return path / FOLDER


def _begin(path: Path, config: Any) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be created ({error.strerror or error})", "choose another -o", file=path
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
        return _begin(path, config)
    # An option that is younger than the run had its default.
    then = flat(defaults(config)) | flat(begun_with(folder))
    now = flat(dataclasses.asdict(config))
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


def begun_with(folder: str) -> dict[str, Any]:
    """The configuration that a run began with; empty where there is no run.

    Raises:
        OutputError: the folder holds other things than a run of ours.
    """
    path = Path(folder)
    if not path.is_dir() or not any(path.iterdir()):
        return {}
    try:
        return yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OutputError(f"it is not a run to resume (no {CONFIG} that can be read)", "check -o", file=path) from error


def check_free(folder: str, *, force: bool, inputs: Sequence[str | None] = ()) -> None:
    """Whether a run may be made there.

    Raises:
        OutputError: it exists and is not empty, without ``force``; it is no run of ours; or an input lies in it.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError("it is a file, and a folder is to be made there", "choose another -o", file=folder)
    for given in inputs:
        if given is not None and Path(given).resolve().is_relative_to(path.resolve()):
            raise OutputError(f"the input {given} lies in it", "choose another -o", file=folder)
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not force:
        if any((path / CHECKPOINTS).glob("*.ckpt")) and not (path / WEIGHTS).is_file():
            raise OutputError(
                "an unfinished run left its checkpoints here",
                "go on with --resume, or begin anew with --force",
                file=folder,
            )
        raise OutputError(
            "the folder exists and is not empty", "choose another -o, or pass --force to replace it", file=folder
        )
    if not (path / CONFIG).is_file():  # --force must never remove what we did not make
        raise OutputError(
            f"the folder has no {CONFIG}, so it is not a run of ours to replace", "choose another -o", file=folder
        )


def provenance(config: Any, **facts: Any) -> dict[str, Any]:
    """What made a model: the resolved configuration, versions, and the given facts (fingerprints, figures)."""
    return {"configuration": dataclasses.asdict(config), "versions": versions(), **facts}


def versions() -> dict[str, str]:
    """Of this package, of Python and of what computes here; ``none`` of what is not installed."""
    found = {"genomamba": __version__, "python": platform.python_version()}
    for package in _VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # of what only some commands need
            found[package] = "none"
    return found
