"""One option of a command: a field of its dataclass. Needs no parser, so that a program can run a command too."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

#: `model`: a folder of ours; `checkpoint`: anyone's model, perhaps by its name on the Hugging Face hub
Reads = Literal["file", "model", "checkpoint"]
#: `run`: a run folder; `folder`: one whose files are replaced one by one; `own`: a file that the command looks at
Writes = Literal["file", "folder", "run", "own"]


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    short: str | None = None,
    positional: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    reads: Reads | None = None,
    writes: Writes | None = None,
    formats: tuple[str, ...] = (),
    stdout: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        help: one sentence for ``--help``.
        default: required when missing. A list or a dataclass is copied for each instance.
        short: a one-letter flag such as ``-r``.
        positional: given by place, not by name.
        at_least: the smallest value that makes sense.
        at_most: the largest one.
        reads: the value is a path, or several, that must exist; `paths.check_paths` looks.
        writes: the value is a path that must not exist, but for ``--force``.
        formats: extensions, one of which that path must have; any will do when not given.
        stdout: whether ``-`` may stand for that path; it is refused otherwise.
    """
    metadata = {
        "help": help,
        "short": short,
        "positional": positional,
        "at_least": at_least,
        "at_most": at_most,
        "reads": reads,
        "writes": writes,
        "formats": formats,
        "stdout": stdout,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
