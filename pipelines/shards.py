"""What is done of an output, kept beside it until the output is whole, so that a run that is killed can go on.

A folder ``OUTPUT.shards`` holds ``manifest.json`` (what the run was begun with) and a file per finished shard. Each
file appears whole or not at all; so whatever kills the run, at any moment, what lies there is true.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from genomamba.errors import ConfigError, OutputError, UserError
from genomamba.files import refuse_existing, whole_file

FORMAT = 1
MANIFEST, PUBLISHING = "manifest.json", "publishing"
Facts = Mapping[str, str | int | float | bool | None]


def work_folder(output: str) -> Path:
    """Where the shards of an output are kept."""
    return Path(f"{output}.shards")


def _aside(folder: Path) -> Path:
    """Where a work folder goes before it is removed."""
    return folder.with_name(f".{folder.name}.removed")


def _remove(folder: Path) -> None:
    """In one step, so that a kill never leaves a part that could be taken for an unfinished run."""
    aside = _aside(folder)
    folder.rename(aside)
    shutil.rmtree(aside)


def check_place(output: str, *others: str | None, resume: bool, force: bool) -> None:
    """Whether a run may write there; called before anything slow is done.

    Clears away what a run was removing when it was killed. An output that is finished counts as existing, also where
    the run that is asked for resumes.

    Args:
        output: of the run.
        others: further files that it writes at its end.
        resume: whether it goes on with what an earlier run left.
        force: whether it replaces what stands there.

    Raises:
        ConfigError: ``resume`` and ``force``.
        OutputError: an output exists; an unfinished run's shards lie there and neither flag is set; or what lies
            there is not ours.
    """
    if resume and force:
        raise ConfigError("--resume keeps what is done and --force removes it", "give one of them", field="resume")
    folder = work_folder(output)
    shutil.rmtree(_aside(folder), ignore_errors=True)  # another process may be at it
    begun = folder.is_dir() and any(folder.iterdir())
    if begun and not (folder / MANIFEST).is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise OutputError("it is in the way and has no manifest of ours", "move it, or choose another -o", file=folder)
    if (folder / MANIFEST).is_file() and not (resume or force):
        raise OutputError(
            "an unfinished run left what it had done here",
            "go on with --resume, or begin anew with --force",
            file=folder,
        )
    replaces = force or (resume and (_read(folder).get("force") or (folder / PUBLISHING).exists()))
    for path in (output, *others):
        if path is not None:
            refuse_existing(path, force=bool(replaces))


class Shards:
    """The work folder as a context manager: removed once the output stands, kept when the run is stopped.

    A user's error before the first shard is done leaves nothing.

    Args:
        output: path of the output.
        facts: everything that has a say in the output's bytes: fingerprints of the inputs, and options.
        resume: go on with what is there.
        force: begin anew, whatever is there.

    Attributes:
        folder: also for unfinished files of the same run; what a killed run left of those is cleared away.

    Raises:
        ConfigError: on entering, where the run that is to go on was begun with other facts.
        OutputError: the folder cannot be made, or another process is at work in it.
    """

    def __init__(self, output: str, facts: Facts, *, resume: bool, force: bool) -> None:
        self.folder = work_folder(output)
        self._facts, self._resume, self._force = dict(facts), resume, force

    def __enter__(self) -> Shards:
        begun = (self.folder / MANIFEST).is_file()
        if begun:
            self._lock()
        if begun and self._resume:
            self._check()
            for left in self.folder.glob(".*.tmp*"):
                left.unlink()
            return self
        with self._manifest if begun else nullcontext():
            if self.folder.is_dir():
                _remove(self.folder)
        try:
            self.folder.mkdir()
        except OSError as error:
            raise OutputError(
                f"the folder cannot be created ({error.strerror or error})", "choose another -o", file=self.folder
            ) from error
        _write(self.folder / MANIFEST, {"format": FORMAT, "force": self._force, "facts": self._facts})
        self._lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._manifest:
            if error is None or (isinstance(error, UserError) and not self.count()):
                _remove(self.folder)

    def save(self, number: int, content: Any) -> None:
        """Keeps one shard's result; anything that JSON can hold."""
        _write(self._path(number), content)

    def load(self, number: int) -> Any | None:
        """A shard's result, None where it is not done.

        Raises:
            OutputError: the file is damaged.
        """
        path = self._path(number)
        return _read_json(path) if path.exists() else None

    def has(self, number: int) -> bool:
        """Whether a shard is done."""
        return self._path(number).exists()

    def count(self) -> int:
        """How many are done."""
        return sum(1 for _ in self.folder.glob("shard-*.json"))

    def publishing(self) -> None:
        """Says that what appears at the output from now on is this run's own; a killed run may then replace it."""
        (self.folder / PUBLISHING).touch()

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:09d}.json"

    def _lock(self) -> None:
        self._manifest = (self.folder / MANIFEST).open("rb")
        try:
            fcntl.flock(self._manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._manifest.close()
            raise OutputError("another process is at work on it", "wait for its end", file=self.folder) from error

    def _check(self) -> None:
        begun = _read(self.folder)
        then = begun["facts"]
        for key in [*self._facts, *then]:
            if begun["format"] != FORMAT or then.get(key) != self._facts.get(key):
                self._manifest.close()
                raise ConfigError(
                    f"the run that is to go on began with {then.get(key)}",
                    "give what it began with, or begin anew with --force",
                    file=self.folder / MANIFEST,
                    field=key,
                    value=self._facts.get(key),
                )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    found = _read_json(path)
    if not isinstance(found, dict) or not {"format", "force", "facts"} <= found.keys():
        raise _damaged(path, "something is missing from it")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> OutputError:
    return OutputError(f"it is damaged ({why})", "begin anew with --force", file=path)


def _write(path: Path, content: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
