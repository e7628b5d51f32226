"""Files appear whole or not at all; only what keeps them from being written is called that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from genomamba.errors import OutputError
from genomamba.files import unfinished_file, whole_file

WAYS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "whole": lambda folder: whole_file(folder / "out"),
    "unfinished": unfinished_file,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Path], AbstractContextManager[Any]]:
    return WAYS[request.param]


def path_of(given: Any) -> str:
    return str(given if isinstance(given, Path) else given.name)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)),  # of stderr, where progress goes
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "genome.fa"),
        OSError(errno.EIO, os.strerror(errno.EIO), "genome.fa"),
        OSError(errno.EIO, os.strerror(errno.EIO)),  # reading fails so too
        KeyboardInterrupt(),
    ],
)
def test_errors_of_others_pass_as_they_are(
    way: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path, error: BaseException
) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(type(error)) as caught, way(tmp_path):
        raise error
    assert caught.value is error
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@pytest.mark.parametrize(
    ("number", "ending"),
    [(number, None) for number in FULL]  # it names no file
    + [(number, ending) for number in (*FULL, errno.EIO, errno.EACCES) for ending in ("", ".bw")],
)
def test_what_keeps_the_file_from_being_written_is_told(
    way: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path, number: int, ending: str | None
) -> None:
    def fail() -> None:
        with way(tmp_path) as given:
            raise OSError(number, os.strerror(number), None if ending is None else path_of(given) + ending)

    with pytest.raises(OutputError, match=f"it could not be written .{os.strerror(number)}.; check") as caught:
        fail()
    assert str(caught.value.file).startswith(str(tmp_path))
    assert ".tmp" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_when_the_file_is_closed_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def write() -> None:
        with unfinished_file(tmp_path) as file:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, file.fileno())
            os.close(full)
            file.write(b"buffered")

    with pytest.raises(OutputError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_that_cannot_take_its_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OutputError, match="out: it could not be written"), whole_file(tmp_path / "out") as path:
        path.write_text("new")
    assert list(tmp_path.iterdir()) == []
