"""What is kept of an unfinished output comes back as it was, whatever it is, or is refused as damaged."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genomamba.errors import OutputError, UserError
from genomamba.pipelines.shard_worker import RemoteError
from genomamba.pipelines.sharded import cut, in_order, sizes
from genomamba.pipelines.shards import Shards, work_folder


class Stop(BaseException):
    """Ends a run as a kill would, so that its shards stay."""


def written(folder: Path, content: bytes) -> Path:
    path = folder / ".values.tmp"
    path.write_bytes(content)
    return path


def saved(out: Path, *contents: Any) -> None:
    """A run that is stopped after so many shards; bytes are written to a file."""
    with suppress(Stop), Shards(str(out), {"a": 1}, resume=False, force=False) as shards:
        for number, content in enumerate(contents):
            shards.save(number, written(shards.folder, content) if isinstance(content, bytes) else content)
        raise Stop


def test_json_arrays_and_files_come_back(tmp_path: Path) -> None:
    arrays = {"x": np.array([[0.1, np.nan], [-0.0, 3]], np.float32), "n": np.array([], np.int64)}
    saved(tmp_path / "o", [["OK", 0.1]], arrays, b"\x00\x01", {"x": 1})
    with Shards(str(tmp_path / "o"), {"a": 1}, resume=True, force=False) as shards:
        assert shards.done() == {0, 1, 2, 3}
        assert shards.load(0) == [["OK", 0.1]]
        found = shards.load(1)
        assert found is not None
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()
        path = shards.load(2)
        assert path is not None
        assert (path.parent, path.read_bytes()) == (shards.folder, b"\x00\x01")
        assert shards.load(3) == {"x": 1}
        assert shards.load(4) is None
    assert not work_folder(str(tmp_path / "o")).exists()


@pytest.mark.parametrize("content", [[1, 2, 3], {"x": np.arange(99)}])
def test_what_was_cut_is_refused(tmp_path: Path, content: Any) -> None:
    saved(tmp_path / "o", content)
    (path,) = work_folder(str(tmp_path / "o")).glob("shard-*")
    os.truncate(path, path.stat().st_size // 2)
    with suppress(Stop), Shards(str(tmp_path / "o"), {"a": 1}, resume=True, force=False) as shards:
        with pytest.raises(OutputError, match=r"shard-000000000\.\w+: it is damaged .*; begin anew with --force"):
            shards.load(0)
        raise Stop


@pytest.mark.parametrize("error", [UserError("no", "do"), RemoteError("no; do", 2)])
def test_a_users_error_before_the_first_shard_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    def failing(*contents: Any) -> None:
        with Shards(str(tmp_path / "o"), {"a": 1}, resume=False, force=False) as shards:
            for number, content in enumerate(contents):
                shards.save(number, content)
            raise error

    with pytest.raises(type(error)):
        failing()
    assert not work_folder(str(tmp_path / "o")).exists()
    with pytest.raises(type(error)):
        failing([1])
    assert work_folder(str(tmp_path / "o")).exists()


def test_a_part_is_worked_out_once_and_in_order(tmp_path: Path) -> None:
    done: list[list[int]] = []

    def squares(part: list[int]) -> list[int]:
        done.append(part)
        return [x * x for x in part]

    with Shards(str(tmp_path / "o"), {}, resume=False, force=False) as shards:
        shards.save(1, [-1, -2])
        kept = list(in_order(shards, cut(range(5), 2), squares))
        assert kept == [([0, 1], [0, 1]), ([2, 3], [-1, -2]), ([4], [16])]
        assert list(in_order(shards, cut(range(5), 2), squares)) == kept
        moved = list(in_order(shards, [(7, b"x")], lambda part: written(shards.folder, part)))
        assert moved[0][1].read_bytes() == b"x"
        assert moved[0][1].name.startswith("shard-")
    assert done == [[0, 1], [4]]
    assert list(in_order(None, cut(range(3), 2), squares)) == [([0, 1], [0, 1]), ([2], [4])]
    assert [sizes(5, 2), sizes(4, 2), sizes(0, 2)] == [[2, 2, 1], [2, 2], []]
