"""Tables as files: TSV, plain or bgzip, and Parquet, chosen by the extension."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from genomamba.errors import OutputError
from genomamba.files import refuse_existing, whole_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

TableFormat = Literal["tsv", "tsv.gz", "parquet"]
SUFFIXES: tuple[TableFormat, ...] = ("tsv", "tsv.gz", "parquet")
MISSING = "NA"
_ROWS_AT_ONCE = 65_536  # a row group of Parquet
_ARROW = {str: "string", int: "int64", float: "float64"}


def table_format(path: str | os.PathLike[str]) -> TableFormat | None:
    """The format of table that a path's extension asks for, None where it asks for none."""
    name = str(path).lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(f".{suffix}")), None)


class TableWriter:
    """A table that appears whole or not at all; to be used as a context manager.

    In TSV, what is missing is ``NA`` and numbers have six digits; Parquet has nulls and the numbers as they are.

    Args:
        path: where to; its extension chooses the format.
        columns: names and types: str, int or float.
        force: whether to replace what stands at ``path``.
        folder: where the file grows until it is whole, on the same file system; beside ``path`` when not given.

    Raises:
        OutputError: the extension is unknown, the file exists and ``force`` is not set, or it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Mapping[str, type],
        *,
        force: bool = False,
        folder: Path | None = None,
    ) -> None:
        form = table_format(path)
        if form is None:
            raise OutputError("the extension names no table", f"use one of .{', .'.join(SUFFIXES)}", file=path)
        refuse_existing(path, force=force)
        self.path, self._format, self._columns, self._folder = path, form, dict(columns), folder
        self._stack = ExitStack()
        self._rows: list[Sequence[Any]] = []

    def __enter__(self) -> TableWriter:
        temporary = self._stack.enter_context(whole_file(self.path, folder=self._folder))
        try:
            if self._format == "parquet":
                self._parquet = _open_parquet(temporary, self._columns)
            else:
                self._text = _open_text(temporary, bgzip=self._format == "tsv.gz")
                self._put(list(self._columns))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            (self._parquet if self._format == "parquet" else self._text).close()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)

    def write(self, row: Sequence[str | int | float | None]) -> None:
        """Appends one row, in the order of the columns."""
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if self._format != "parquet":
            for row in rows:
                self._put([cell_text(value) for value in row])
        elif rows:
            import pyarrow as pa

            schema = self._parquet.schema
            columns = zip(*rows, strict=True)
            arrays = [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
            self._parquet.write_table(pa.Table.from_arrays(arrays, schema=schema))

    def _put(self, cells: Sequence[str]) -> None:
        self._text.write(("\t".join(cells) + "\n").encode("utf-8", errors="surrogateescape"))


def cell_text(value: str | int | float | None) -> str:
    """A value as TSV has it."""
    if value is None:
        return MISSING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _open_text(path: Path, *, bgzip: bool) -> BinaryIO:
    if not bgzip:
        return path.open("wb")
    import pysam

    return cast(BinaryIO, pysam.BGZFile(str(path), "wb", None))


def _open_parquet(path: Path, columns: Mapping[str, type]) -> ParquetWriter:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in columns.items()])
    return ParquetWriter(path, schema, compression="zstd")
