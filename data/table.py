"""Variants in a CSV or TSV with a header row."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from genomamba.data.compressed import open_decompressed
from genomamba.data.vcf import VcfRecord, parse_pos
from genomamba.errors import VariantFileError

_CONTIG = ("chrom", "contig", "chr")
_NEEDED = ("pos", "ref", "alt")


class VariantTable:
    """A table with the columns chrom (or contig), pos (1-based, as in VCF), ref and alt, and any others; to be
    iterated over as often as needed.

    Plain, gzip or bgzip; split at tabs where the header row has one, else at commas. Column names are taken in
    lower case.

    Args:
        path: the file.

    Attributes:
        name: what errors call it.
        columns: names in order.
        contigs: None, since a table declares none; see ``prescan.VariantSource``.

    Raises:
        VariantFileError: a column is missing or named twice; while iterating, at the first row that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        self.contigs = None
        with self._open() as stream:
            first = stream.readline().removeprefix("\ufeff")
        self._delimiter = "\t" if "\t" in first else ","
        self.columns = [name.strip().lower() for name in first.removeprefix("#").rstrip("\r\n").split(self._delimiter)]
        self._contig = next((name for name in _CONTIG if name in self.columns), _CONTIG[0])
        for name in (self._contig, *_NEEDED):
            if self.columns.count(name) != 1:
                what = "is missing" if name not in self.columns else "is there twice"
                raise VariantFileError(
                    f"the column {what}", f"the columns are {', '.join(self.columns)}", file=path, line=1, field=name
                )

    def __iter__(self) -> Iterator[VcfRecord]:
        return (record for record, _ in self.rows())

    def rows(self) -> Iterator[tuple[VcfRecord, dict[str, str]]]:
        """Each row as a record without INFO, and as its columns."""
        with self._open() as stream:
            if self._delimiter == "\t":
                reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                reader = csv.reader(stream, strict=True)
            try:
                next(reader)
                for fields in reader:
                    yield self._row(reader.line_num, fields)
            except csv.Error as error:
                raise VariantFileError(
                    f"the row cannot be read ({error})", "correct its quotes", file=self.name, line=reader.line_num
                ) from error

    def _row(self, line: int, fields: list[str]) -> tuple[VcfRecord, dict[str, str]]:
        if len(fields) != len(self.columns):
            raise VariantFileError(
                f"the row has {len(fields)} columns where the header has {len(self.columns)}",
                "correct it, or delete it if it is blank",
                file=self.name,
                line=line,
            )
        row = dict(zip(self.columns, fields, strict=True))
        pos = parse_pos(row["pos"])
        if pos is None:
            raise VariantFileError(
                "pos is not a position",
                "write it as a whole number in plain digits, 1 for the first base",
                file=self.name,
                line=line,
                field="pos",
                value=row["pos"],
            )
        text = self._delimiter.join(fields)
        return VcfRecord(line, row[self._contig], pos, ".", row["ref"], (row["alt"],), ".", text), row

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_decompressed(self.name, VariantFileError), encoding="utf-8", newline="")
