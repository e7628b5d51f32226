"""Labelled sequences: what a classifier of whole sequences learns from and is measured on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genomamba.data.bed import read_bed
from genomamba.data.reference import Reference
from genomamba.data.rows import RowTable, nearest
from genomamba.errors import LabelError, RegionError
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.genome.interval import Interval

Split = str
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
SPLIT_NAMES = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev"}
SPLIT_NAMES["test"] = "test"
NO_LABEL = frozenset({"", "nan", "na", "n/a", "null", "none", "."})


class LabelledSequence(NamedTuple):
    """One sequence with what is known of it.

    Attributes:
        ids: (L,), uint8.
        label: as it was written.
        split: ``train``, ``dev`` or ``test``; empty where the input names none.
        line: where it was read: line of a table or BED, number of a FASTA's record.
        strata: what stands in the columns that figures are to be split by.
        place: where a BED says that it stands.
        gene: what the table says of it, empty where it has no such column.
    """

    ids: Ids
    label: str
    split: Split
    line: int
    strata: tuple[str, ...] = ()
    place: Interval | None = None
    gene: str = ""


@dataclass(frozen=True)
class LabelledSequences:
    """What an input holds.

    Args:
        source: name of the file.
        items: in file order.
        no_base: lines of sequences without a single A, C, G or T, which are left out.
        at_edges: lines of those that were left out since they reach into a block of another split.
    """

    source: str
    items: list[LabelledSequence]
    no_base: list[int]
    at_edges: list[int] = field(default_factory=list)

    @property
    def left_out(self) -> dict[str, int]:
        """How many are not among the items, and why."""
        reasons = {"no base in it": len(self.no_base), "across the edge of two splits' blocks": len(self.at_edges)}
        return {reason: count for reason, count in reasons.items() if count}


class Columns(NamedTuple):
    """Which columns of a table are meant."""

    sequence: str = "sequence"
    label: str = "label"
    split: str = "split"
    name: str = "name"
    gene: str = "gene"
    named: tuple[str, ...] = ()  # of split and gene, which may be missing, those that have to be there
    strata: tuple[str, ...] = ()


def read_sequence_table(path: str | os.PathLike[str], columns: Columns, *, rna: bool = False) -> LabelledSequences:
    """A CSV, TSV or Parquet of sequences; the column of the split may be missing.

    Args:
        path: the file.
        columns: their names.
        rna: read U as T.

    Raises:
        LabelError: a column is missing, or a row's sequence, label or split is none.
    """
    table = RowTable(path, LabelError)
    _require(table, columns.sequence, columns.label, *columns.strata, *columns.named)
    has_split = columns.split in table.columns

    def items() -> Iterator[LabelledSequence]:
        for line, row in table:
            ids = _ids(row[columns.sequence], columns.sequence, table.name, line, rna=rna)
            label = _label(row[columns.label], columns.label, table.name, line)
            split = _split(row[columns.split], columns.split, table.name, line) if has_split else ""
            strata = tuple(row[name] for name in columns.strata)
            yield LabelledSequence(ids, label, split, line, strata, gene=row.get(columns.gene, ""))

    return _collect(table.name, items())


def read_named_sequences(
    reference: Reference, labels: str | os.PathLike[str], columns: Columns, bed: str | os.PathLike[str] | None = None
) -> LabelledSequences:
    """Records of a FASTA, or intervals of a BED on it, whose labels stand in a table under their names.

    Args:
        reference: the FASTA.
        labels: a table with a row for each name; names without a sequence are an error, and so is the reverse.
        columns: their names.
        bed: intervals; their fourth column is the name, their sixth the strand. None: every record, whole.

    Raises:
        LabelError: a name without a label or without a sequence, a name twice, or a label or split that is none.
        RegionError: an interval is not on the reference.
    """
    table = RowTable(labels, LabelError)
    _require(table, columns.name, columns.label, *columns.strata, *columns.named)
    rows = {}
    for row in table:
        name = row.values[columns.name]
        if name in rows:
            raise LabelError("the name stands twice", "keep one", file=labels, line=row.line, field="name", value=name)
        rows[name] = row
    if not rows:
        raise LabelError("there are no records in it", "give each sequence a row", file=labels)
    places = list(_records(reference) if bed is None else _intervals(bed, reference))
    source = str(reference.path if bed is None else bed)
    has_split = columns.split in table.columns
    left = dict(rows)

    def items() -> Iterator[LabelledSequence]:
        for name, interval, line in places:
            if name not in rows:
                raise LabelError(
                    f"{table.name} has no label for it", "add one", file=source, line=line, field="name", value=name
                )
            left.pop(name, None)
            at, row = rows[name]
            label = _label(row[columns.label], columns.label, table.name, at)
            split = _split(row[columns.split], columns.split, table.name, at) if has_split else ""
            strata = tuple(row[column] for column in columns.strata)
            place = None if bed is None else interval
            gene = row.get(columns.gene, "")
            yield LabelledSequence(reference.ids(interval), label, split, line, strata, place, gene)

    found = _collect(source, items())
    if left:
        name, row = next(iter(left.items()))
        raise LabelError(
            f"{source} has no sequence of this name ({len(left)} such names in all)",
            "delete the row, or add the sequence",
            file=labels,
            line=row.line,
            field="name",
            value=name,
        )
    return found


def _records(reference: Reference) -> Iterator[tuple[str, Interval, int]]:
    for number, (name, length) in enumerate(reference.contigs.items(), start=1):
        yield name, Interval(name, 0, length), number


def _intervals(bed: str | os.PathLike[str], reference: Reference) -> Iterator[tuple[str, Interval, int]]:
    for record in read_bed(bed):
        interval = record.interval
        length = reference.contigs.get(interval.contig)
        if length is None or interval.end > length or not interval.length:
            problem = "the reference has no such contig" if length is None else "it is empty or ends past the contig"
            raise RegionError(
                problem,
                "correct it or delete the line",
                file=bed,
                line=record.line,
                field="region",
                value=str(interval),
            )
        yield record.name, interval, record.line


def _collect(source: str, items: Iterator[LabelledSequence]) -> LabelledSequences:
    found = LabelledSequences(source, [], [])
    for item in items:
        if np.isin(item.ids, alphabet.BASES).any():
            found.items.append(item)
        else:
            found.no_base.append(item.line)
    if not found.items and not found.no_base:
        raise LabelError("there are no records in it", "check how it was made", file=source)
    if not found.items:
        raise LabelError("no sequence in it has a base", "check how it was made", file=source)
    return found


def _require(table: RowTable, *names: str) -> None:
    for name in names:
        if name not in table.columns:
            raise LabelError(
                "there is no such column",
                f"there is {nearest(name, table.columns)}; --columns names others",
                file=table.name,
                field=name,
            )
    table.require(names)


def _ids(text: str, field: str, source: str, line: int, *, rna: bool) -> Ids:
    def fail(problem: str, remedy: str) -> LabelError:
        return LabelError(problem, remedy, file=source, line=line, field=field, value=text or None)

    if not text:
        raise fail("the sequence is empty", "delete the row")
    if rna:
        text = text.replace("U", "T").replace("u", "t")
    try:
        residues = alphabet.as_residues(text)
    except UnicodeEncodeError as error:
        raise fail("it is no sequence of nucleotides", "use A, C, G, T, N and IUPAC codes") from error
    known = alphabet.IS_IUPAC.take(residues)
    if not known.all():
        letter = text[int(np.argmin(known))]
        remedy = "pass --rna to read it as T" if letter in "Uu" else "use A, C, G, T, N and IUPAC codes"
        raise fail(f"{letter!r} at base {int(np.argmin(known)) + 1} is no nucleotide", remedy)
    return alphabet.encode(residues)


def _label(text: str, field: str, source: str, line: int) -> str:
    if text.strip().lower() in NO_LABEL:
        raise LabelError(
            "this is no label", "give one, or delete the row", file=source, line=line, field=field, value=text or None
        )
    if not text.strip().isprintable():  # it will be a column's name in TSV
        raise LabelError(
            "the label holds control characters", "rename the class", file=source, line=line, field=field, value=text
        )
    return text.strip()


def _split(text: str, field: str, source: str, line: int) -> Split:
    split = SPLIT_NAMES.get(text.strip().lower())
    if split is None:
        raise LabelError(
            "no such split", "write train, dev or test", file=source, line=line, field=field, value=text or None
        )
    return split


def class_names(labels: Sequence[str]) -> list[str]:
    """The distinct labels, whole numbers by size, others by the alphabet."""
    key: Callable[[str], tuple[bool, int, str]] = lambda name: (  # noqa: E731
        (False, int(name), name) if name.removeprefix("-").isdecimal() else (True, 0, name)
    )
    return sorted(set(labels), key=key)
