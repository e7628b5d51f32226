"""Tables that appear whole or not at all, and hold what was written."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pysam
import pytest

from genomamba.data.table_write import TableWriter
from genomamba.errors import OutputError

COLUMNS = {"name": str, "pos": int, "score": float}
ROWS = [("a", 1, 0.123456789), ("b|c", 2**40, None), ("é", 0, -1e-9)]


def write(path: Path, rows: list = ROWS, **options: object) -> None:
    with TableWriter(path, COLUMNS, **options) as table:  # type: ignore[arg-type]
        for row in rows:
            table.write(row)


TEXT = "name\tpos\tscore\na\t1\t0.123457\nb|c\t1099511627776\tNA\né\t0\t-1e-09\n"


def test_text(tmp_path: Path) -> None:
    write(tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_text() == TEXT
    write(tmp_path / "t.tsv.gz")
    with pysam.BGZFile(str(tmp_path / "t.tsv.gz")) as stream:
        assert stream.read().decode() == TEXT


@pytest.mark.parametrize("rows", [ROWS, []])
def test_parquet(rows: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genomamba.data.table_write._ROWS_AT_ONCE", 2)
    write(tmp_path / "t.parquet", rows)
    found = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert found.schema.names == list(COLUMNS)
    assert [str(kind) for kind in found.schema.types] == ["string", "int64", "double"]
    assert list(zip(*found.to_pydict().values(), strict=True)) == rows


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.parquet"])
def test_an_error_half_way_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / name)
    with pytest.raises(ZeroDivisionError), TableWriter(tmp_path / name, COLUMNS, force=True) as table:
        table.write((ROWS[0][0], 1 // 0, 0.0))
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    write(tmp_path / name, force=True)
    assert (tmp_path / name).read_bytes() != b"old"


def test_an_unknown_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"use one of \.tsv, \.tsv\.gz, \.parquet"):
        write(tmp_path / "t.csv")
