"""The exception tree.

    GenoMambaError                 something went wrong; the process exits with 1
    ├── KernelUnavailableError     an implementation was asked for that cannot run here
    └── UserError                  the user can put it right; one line on stderr, exit 2
        ├── SequenceFileError      FASTA, its compression, or an index
        ├── RegionError            a region string, a BED file, or an interval off the contig
        ├── VariantFileError       a VCF or BCF
        ├── LabelError             labels, classes, or splits that leak
        ├── ConfigError            a key or value in YAML or on the command line
        ├── CheckpointError        a model folder or training checkpoint
        └── OutputError            a file that exists, cannot be written, or a full disk

A message reads ``file:line: field=value: what is wrong; what to do``. ``Terminated`` stands outside the tree: it is to
SIGTERM what KeyboardInterrupt is to Ctrl-C.
"""

from __future__ import annotations

from os import PathLike


class Terminated(BaseException):
    """SIGTERM came; raised where the process then was, so that what is unfinished is cleaned up."""


class GenoMambaError(Exception):
    """Base class of everything raised on purpose."""

    exit_code = 1


class KernelUnavailableError(GenoMambaError):
    """An explicitly chosen kernel implementation cannot run on this machine or input."""

    exit_code = 2


class UserError(GenoMambaError):
    """A mistake that the user can correct.

    Args:
        problem: what is wrong, without a trailing full stop.
        remedy: what to do about it.
        file: path of the file at fault.
        line: 1-based line within ``file``.
        field: name of the column, key or option.
        value: its offending value; shortened when long.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        file: str | PathLike[str] | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        self.problem, self.remedy = problem, remedy
        self.file, self.line, self.field, self.value = file, line, field, value
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = []
        if self.file is not None:
            parts.append(f"{self.file}:{self.line}" if self.line is not None else str(self.file))
        if self.field is not None:
            parts.append(self.field if self.value is None else f"{self.field}={_short(self.value)}")
        return ": ".join([*parts, f"{self.problem}; {self.remedy}"])


def _short(value: object, limit: int = 60) -> str:
    """One printable line: control characters escaped, the middle of long values cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 4 :]}"


class SequenceFileError(UserError):
    """FASTA, its compression, or an index of it."""


class RegionError(UserError):
    """A region string, a BED file, or an interval that leaves its contig."""


class VariantFileError(UserError):
    """A VCF or BCF."""


class LabelError(UserError):
    """Labels, classes, or splits that leak into one another."""


class ConfigError(UserError):
    """A key or value in YAML or on the command line."""


class CheckpointError(UserError):
    """A model folder or a training checkpoint."""


class OutputError(UserError):
    """A file to be written that exists already or cannot be written."""
