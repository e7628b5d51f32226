"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from genomamba.errors import OutputError


def refuse_existing(path: str | os.PathLike[str], *, force: bool, folder: bool = False) -> None:
    """Whether an output may be written.

    Args:
        path: of the output.
        force: whether it may replace what is there.
        folder: whether it is one; a file never replaces a folder, nor a folder a file.

    Raises:
        OutputError: ``path`` exists, or the folder that it is to lie in does not.
    """
    if folder and os.path.lexists(path) and not os.path.isdir(path):
        raise OutputError("it is a file, and a folder is to be made there", "choose another -o", file=path)
    if not folder and os.path.isdir(path):
        raise OutputError("it is a folder, and a file is to be written there", "choose another -o", file=path)
    if not force and os.path.lexists(path):
        raise OutputError("the output exists", "choose another -o, or pass --force to replace it", file=path)
    if not Path(path).parent.is_dir():
        raise OutputError("there is no such folder to write it to", "make the folder, or choose another -o", file=path)


@contextmanager
def whole_file(path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """Yields a temporary path in the target's folder; on success it is fsynced and renamed to ``path``.

    On any exception the temporary file is removed and what stood at ``path`` is left as it was. An OSError of another
    file, which was read meanwhile, or of a stream whose reader has gone, passes as it is.

    Args:
        path: the target.
        folder: another folder of the same file system for the temporary file.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary = _empty_file(f".{target.name}.", Path(folder or target.parent), target)
    try:
        with _told_of(temporary, target):
            yield temporary
        try:
            _sync(temporary)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, target)
            _sync(target.parent)
        except OSError as error:
            raise _output_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def unfinished_file(folder: Path) -> Iterator[IO[bytes]]:
    """Yields a file in ``folder`` whose name begins with a dot and ends in ``.tmp``; removed on any exception.

    Errors of other files pass, as of `whole_file`.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    path = _empty_file(".", folder, folder)
    try:
        with _told_of(path, folder), path.open("wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def adopt(path: Path, target: Path) -> None:
    """Moves a finished file to another place on its file system, where it appears whole or not at all.

    Raises:
        OutputError: it cannot be moved there, or the disk is full.
    """
    try:
        _sync(path)
        os.replace(path, target)
        _sync(target.parent)
    except OSError as error:
        raise _output_error(error, target) from error


def _empty_file(prefix: str, folder: Path, target: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=folder)
        os.close(handle)
    except OSError as error:
        raise _output_error(error, target) from error
    return Path(name)


@contextmanager
def _told_of(temporary: Path, target: Path) -> Iterator[None]:
    """Turns what keeps ``temporary`` from being written into an OutputError of ``target``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            # What is written to an open file names none. Only writing fails so; htslib does not even say why.
            concerns = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        else:  # libraries add an ending of their own
            concerns = str(error.filename).startswith(str(temporary))
        if not concerns:
            raise
        raise _output_error(error, target) from error


def _output_error(error: OSError, target: Path) -> OutputError:
    return OutputError(
        f"it could not be written ({error.strerror or error})",
        "check the folder, its permissions and the free space",
        file=target,
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
