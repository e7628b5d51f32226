"""What is done of an output, kept beside it until the output is whole, so that a run that is killed can go on.

A folder ``OUTPUT.shards`` holds ``manifest.json`` (what the run was begun with) and a file per finished shard: JSON,
arrays as .npz, or bytes that whoever worked it out has written there. Each file appears whole or not at all; so
whatever kills the run, at any moment, what lies there is true.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from genomamba.errors import ConfigError, GenoMambaError, OutputError
from genomamba.files import adopt, refuse_existing, whole_file

FORMAT = 1
MANIFEST, PUBLISHING = "manifest.json", "publishing"
USERS = 2  # the exit code of what the user can correct
_JSON, _ARRAYS, _BYTES = ".json", ".npz", ".bin"
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


def check_place(output: str, outputs: Iterable[str | None], *, resume: bool, force: bool) -> None:
    """Whether a run may write there; called before anything slow is done.

    Clears away what a run was removing when it was killed. An output that is finished counts as existing, also where
    the run that is asked for resumes.

    Args:
        output: of the run, which its work folder is named after.
        outputs: the files that it writes; None is none.
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
    for path in outputs:
        if path is not None:
            refuse_existing(path, force=bool(replaces))


def refuse_stdout(*, resume: bool, devices: int | str) -> None:
    """Raises ConfigError for options that need a place to keep shards, where the output is ``-``."""
    if resume:
        raise ConfigError("stdout cannot be resumed", "give a file as -o", field="resume")
    if devices != 1:
        raise ConfigError("stdout keeps no shards", "give a file as -o", field="devices", value=devices)


def check_way(output: str, outputs: Iterable[str], *, resume: bool, force: bool, devices: int | str) -> None:
    """Whether a run may write there, or to stdout where it is ``-``, in the way that is asked for.

    Raises:
        ConfigError, OutputError: as `refuse_stdout` and `check_place`, whose arguments these are.
    """
    if output == "-":
        refuse_stdout(resume=resume, devices=devices)
    else:
        check_place(output, outputs, resume=resume, force=force)


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
            told = isinstance(error, GenoMambaError) and error.exit_code == USERS  # also by another process
            if error is None or (told and not self.done()):
                _remove(self.folder)

    def save(self, number: int, content: Any) -> Any:
        """Keeps one shard's result, and returns it; of a file, the path that it then has.

        Args:
            number: of the shard.
            content: a dictionary of arrays; the path of a file in ``folder``, which is moved; or what JSON can hold.
        """
        if isinstance(content, Path):
            content, written = self._path(number, _BYTES), content
            adopt(written, content)
        elif _are_arrays(content):
            _write_arrays(self._path(number, _ARRAYS), content)
        else:
            _write(self._path(number, _JSON), content)
        return content

    def load(self, number: int) -> Any | None:
        """A shard's result as it was saved, or the path that its file now has; None where it is not done.

        Raises:
            OutputError: the file is damaged.
        """
        for suffix, read in ((_JSON, _read_json), (_ARRAYS, _read_arrays), (_BYTES, Path)):
            path = self._path(number, suffix)
            if path.exists():
                return read(path)
        return None

    def done(self) -> set[int]:
        """Numbers of the shards that are done."""
        return {int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*")}

    def publishing(self) -> None:
        """Says that what appears at the output from now on is this run's own; a killed run may then replace it."""
        (self.folder / PUBLISHING).touch()

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"shard-{number:09d}{suffix}"

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
        raise damaged(path, "something is missing from it")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def _are_arrays(content: Any) -> bool:
    import numpy as np  # not before it is known that there is work to do

    return isinstance(content, dict) and bool(content) and all(isinstance(v, np.ndarray) for v in content.values())


def _read_arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, str(error)) from error


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    with whole_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def damaged(path: Path, why: str) -> OutputError:
    """What the user is told of a file of ours that is not as we wrote it."""
    return OutputError(f"it is damaged ({why})", "begin anew with --force", file=path)


def _write(path: Path, content: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
