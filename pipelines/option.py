"""One option of a command: a field of its dataclass. Needs no parser, so that a program can run a command too."""

from __future__ import annotations

import dataclasses
from typing import Any


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    short: str | None = None,
    positional: bool = False,
    at_least: float | None = None,
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        help: one sentence for ``--help``.
        default: required when missing. A list or a dataclass is copied for each instance.
        short: a one-letter flag such as ``-r``.
        positional: given by place, not by name.
        at_least: the smallest value that makes sense.
    """
    metadata = {"help": help, "short": short, "positional": positional, "at_least": at_least}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
