"""The paths among a command's options, looked at before anything that takes seconds to import."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genomamba.data.compressed import check_there
from genomamba.errors import ConfigError, OutputError, UserError
from genomamba.files import refuse_existing
from genomamba.interop.hub import check_source
from genomamba.model.folder_files import check_whole
from genomamba.model.pretrained import located
from genomamba.pipelines.run_folder import check_free


def check_paths(config: Any) -> None:
    """Whether inputs exist and outputs do not; commands find out themselves what is wrong with what is there.

    Args:
        config: of a command; `option` says which of its fields are paths.

    Raises:
        ConfigError: an output is an input or another output, or ``-`` where nothing is written to stdout.
        OutputError: an output exists, without ``force``, cannot be made where it is to be, or its extension is none
            that the command writes.
        UserError: an input is missing.
    """
    force, goes_on = getattr(config, "force", False), getattr(config, "resume", False)
    refuse_stdout(config)
    refuse_shared(config)
    inputs = [(kind, str(located(path)) if kind != "file" else path) for _, kind, path in _paths(config, "reads")]
    for _, kind, path in _paths(config, "writes"):
        if kind == "own":
            continue
        if kind != "run":
            refuse_existing(path, force=force, folder=kind == "folder")
        elif not goes_on:
            check_free(path, force=force, inputs=[path for _, path in inputs])
    for kind, path in inputs:
        if kind == "file":
            check_there(path, UserError)
        elif kind == "model":
            check_whole(path)
        elif not goes_on:  # a run may no longer need what it started from
            check_source(path)
    refuse_formats(config)


def refuse_formats(config: Any) -> None:
    """Raises OutputError where an output's extension, in any case of letters, is none that is written there."""
    known = {field.name: field.metadata["formats"] for field in dataclasses.fields(config)}
    for name, _, path in _paths(config, "writes"):
        formats = known[name]
        if formats and not path.lower().endswith(formats):
            some = "one of " if len(formats) > 1 else ""
            raise OutputError("the extension names no format", f"use {some}{', '.join(formats)}", file=path, field=name)


def refuse_stdout(config: Any) -> None:
    """Raises ConfigError where ``-`` is given for an output that does not go to stdout, which may hold another."""
    for field in dataclasses.fields(config):
        if field.metadata["writes"] is not None and not field.metadata["stdout"] and getattr(config, field.name) == "-":
            raise ConfigError("it is not written to stdout", "give a path", field=field.name, value="-")


def refuse_shared(config: Any) -> None:
    """Raises ConfigError where one file would be written twice, or over what is read."""
    seen = {Path(path).resolve(): name for name, kind, path in _paths(config, "reads") if kind == "file"}
    for name, _, path in _paths(config, "writes"):
        other = seen.setdefault(Path(path).resolve(), name)
        if other != name:
            raise ConfigError(f"{other} is the same file", "give another name", file=path, field=name)


def _paths(config: Any, role: str) -> Iterator[tuple[str, str, str]]:
    """Option, kind and path, but for what is not given and the standard streams."""
    for field in dataclasses.fields(config):
        kind, value = field.metadata[role], getattr(config, field.name)
        if kind is not None and value is not None:
            paths = value if isinstance(value, list) else [value]
            yield from ((field.name, kind, path) for path in paths if path != "-")
