"""Tables as rows of text: CSV, TSV (plain, gzip or bgzip) and Parquet, told apart by what they hold."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from genomamba.data.compressed import open_decompressed, open_regular
from genomamba.errors import ConfigError, UserError

PARQUET_MAGIC = b"PAR1"
_ROWS_AT_ONCE = 16_384


class Row(NamedTuple):
    """One row.

    Attributes:
        line: 1-based line in the file; in Parquet, the number of the row, from 1.
        values: text of each column; what is null in Parquet is empty.
    """

    line: int
    values: dict[str, str]


class RowTable:
    """A table with a header, to be iterated over as often as needed.

    Text is split at tabs where the header row has one, else at commas. Column names are taken in lower case.

    Args:
        path: the file.
        error: what is raised.

    Attributes:
        columns: names in order.

    Raises:
        UserError: (as ``error``) the file cannot be read; while iterating, at the first row that cannot be.
    """

    def __init__(self, path: str | os.PathLike[str], error: type[UserError]) -> None:
        self.name, self.error = str(path), error
        with open_regular(path, error) as stream:
            self._is_parquet = stream.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
        if self._is_parquet:
            self.columns = [name.strip().lower() for name in self._parquet().schema_arrow.names]
            return
        with self._open() as text:
            try:
                first = text.readline().removeprefix("\ufeff")
            except UnicodeDecodeError as problem:
                raise self._not_text(1) from problem
        self._delimiter = "\t" if "\t" in first else ","
        self.columns = [name.strip().lower() for name in first.removeprefix("#").rstrip("\r\n").split(self._delimiter)]

    def require(self, names: Iterable[str]) -> None:
        """Raises UserError (as ``error``) where a column is missing or named twice."""
        for name in names:
            if self.columns.count(name) != 1:
                what = "is missing" if name not in self.columns else "is there twice"
                raise self.error(
                    f"the column {what}",
                    f"the columns are {', '.join(self.columns)}",
                    file=self.name,
                    line=None if self._is_parquet else 1,
                    field=name,
                )

    def __iter__(self) -> Iterator[Row]:
        return self._parquet_rows() if self._is_parquet else self._text_rows()

    def _text_rows(self) -> Iterator[Row]:
        with self._open() as stream:
            if self._delimiter == "\t":
                reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                reader = csv.reader(stream, strict=True)
            try:
                next(reader)
                for fields in reader:
                    if len(fields) != len(self.columns):
                        raise self.error(
                            f"the row has {len(fields)} columns where the header has {len(self.columns)}",
                            "correct it, or delete it if it is blank",
                            file=self.name,
                            line=reader.line_num,
                        )
                    yield Row(reader.line_num, dict(zip(self.columns, fields, strict=True)))
            except csv.Error as problem:
                raise self.error(
                    f"the row cannot be read ({problem})", "correct its quotes", file=self.name, line=reader.line_num
                ) from problem
            except UnicodeDecodeError as problem:
                raise self._not_text(reader.line_num + 1) from problem

    def _not_text(self, line: int) -> UserError:
        return self.error("it is not UTF-8 text", "give a CSV, TSV or Parquet file", file=self.name, line=line)

    def _parquet_rows(self) -> Iterator[Row]:
        import pyarrow as pa

        number = 0
        try:
            for batch in self._parquet().iter_batches(batch_size=_ROWS_AT_ONCE):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    texts = ("" if value is None else str(value) for value in values)
                    yield Row(number, dict(zip(self.columns, texts, strict=True)))
        except (pa.ArrowException, OSError) as problem:
            raise self._damaged(problem) from problem

    def _parquet(self):  # type: ignore[no-untyped-def]  # pyarrow has no types
        try:
            import pyarrow as pa
            import pyarrow.parquet
        except ImportError as problem:
            raise ConfigError("Parquet needs a package", "pip install pyarrow", file=self.name) from problem
        try:
            return pyarrow.parquet.ParquetFile(self.name)
        except (pa.ArrowException, OSError) as problem:
            raise self._damaged(problem) from problem

    def _damaged(self, problem: Exception) -> UserError:
        first = (str(problem).splitlines() or [type(problem).__name__])[0]
        return self.error(f"the Parquet file cannot be read ({first})", "write it again", file=self.name)

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_decompressed(self.name, self.error), encoding="utf-8", newline="")


def nearest(name: str, known: Iterable[str], shown: int = 5) -> str:
    """The known name most like ``name``, with a question mark; the first few of them where none is like it."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{near[0]} (did you mean that?)"
    return ", ".join(known[:shown]) + (", …" if len(known) > shown else "") or "none"
