"""Variants in a table with a header row: CSV, TSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator

from genomamba.data.rows import Row, RowTable
from genomamba.data.vcf import VcfRecord, parse_pos
from genomamba.errors import VariantFileError

_CONTIG = ("chrom", "contig", "chr")
_NEEDED = ("pos", "ref", "alt")


class VariantTable:
    """A table with the columns chrom (or contig), pos (1-based, as in VCF), ref and alt, and any others; to be
    iterated over as often as needed.

    Args:
        path: the file; see ``rows.RowTable``.

    Attributes:
        name: what errors call it.
        columns: names in order, in lower case.
        contigs: None, since a table declares none; see ``prescan.VariantSource``.

    Raises:
        VariantFileError: a column is missing or named twice; while iterating, at the first row that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        self.contigs = None
        self._table = RowTable(path, VariantFileError)
        self.columns = self._table.columns
        self._contig = next((name for name in _CONTIG if name in self.columns), _CONTIG[0])
        self._table.require((self._contig, *_NEEDED))

    def __iter__(self) -> Iterator[VcfRecord]:
        return (record for record, _ in self.rows())

    def rows(self) -> Iterator[tuple[VcfRecord, dict[str, str]]]:
        """Each row as a record without INFO, and as its columns."""
        return (self._row(row) for row in self._table)

    def _row(self, row: Row) -> tuple[VcfRecord, dict[str, str]]:
        values = row.values
        pos = parse_pos(values["pos"])
        if pos is None:
            raise VariantFileError(
                "pos is not a position",
                "write it as a whole number in plain digits, 1 for the first base",
                file=self.name,
                line=row.line,
                field="pos",
                value=values["pos"],
            )
        text = "\t".join(values.values())
        return VcfRecord(row.line, values[self._contig], pos, ".", values["ref"], (values["alt"],), ".", text), values
