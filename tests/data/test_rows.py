"""One table in every form it may have, and what is wrong with a row by its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genomamba.data.rows import Row, RowTable
from genomamba.errors import LabelError

ROWS = [("ACGT", "yes", "1.5"), ("CC", "", "2.0")]


def write(folder: Path, form: str) -> Path:
    path = folder / "table"
    if form == "parquet":
        columns = {"Sequence": ["ACGT", "CC"], "label": ["yes", None], "x": [1.5, 2.0]}
        pq.write_table(pa.table(columns), path)
        return path
    mark = "\t" if "tsv" in form else ","
    text = mark.join(("Sequence", "label", "x")) + "\n" + "".join(mark.join(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else b"\xef\xbb\xbf" + text.encode())
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_form_reads_alike(tmp_path: Path, form: str) -> None:
    table = RowTable(write(tmp_path, form), LabelError)
    assert table.columns == ["sequence", "label", "x"]
    first = 1 if form == "parquet" else 2
    expected = [Row(first + i, dict(zip(table.columns, row, strict=True))) for i, row in enumerate(ROWS)]
    assert list(table) == list(table) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n3\n", ":3: the row has 1 columns where the header has 2"),
        (b'a,b\n1,"2\n', "the row cannot be read (unexpected end of data); correct its quotes"),
        (b"a,b\n\xff\xfe,2\n", "it is not UTF-8 text"),
        (b"\xff\xfe,b\n", ":1: it is not UTF-8 text"),
        (b"PAR1 and nothing more", "the Parquet file cannot be read"),
        (b"", "the file is empty"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(LabelError) as caught:
        list(RowTable(path, LabelError))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,A\n")
    table = RowTable(path, LabelError)
    with pytest.raises(LabelError, match=r"t\.csv:1: a: the column is there twice"):
        table.require(["b", "a"])
    with pytest.raises(LabelError, match=r":1: c: the column is missing; the columns are a, b, a"):
        table.require(["c"])
