"""Regions from BED (UCSC's definition: tab-separated, 0-based, half-open), plain, gzip or bgzip."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from genomamba.data.compressed import PathLike, open_decompressed
from genomamba.errors import RegionError
from genomamba.genome.interval import STRANDS, Interval

Edge = Literal["pad", "skip", "error"]

ZERO_LENGTH = "SKIP_ZERO_LENGTH"
NO_CONTIG = "SKIP_NO_CONTIG"
OFF_CONTIG = "SKIP_OFF_CONTIG"
CONTIG_EDGE = "SKIP_CONTIG_EDGE"

_NOT_RECORDS = ("#", "track", "browser")
_MOST_DIGITS = 18


class BedRecord(NamedTuple):
    """One line of a BED file.

    Args:
        line: its number, from 1.
        interval: as written; it may be empty, and may pass the contig's end.
        name: the fourth column, or an empty string.
    """

    line: int
    interval: Interval
    name: str


class PlacedRegion(NamedTuple):
    """A BED record on a reference.

    Args:
        record: the record as it was read.
        interval: the part of it on the contig, by the reference's name; None where the record is skipped.
        pad_low: bases missing before the contig's start.
        pad_high: bases missing behind its end.
        skip: reason, ``SKIP_…``; None where it is not skipped.
    """

    record: BedRecord
    interval: Interval | None
    pad_low: int
    pad_high: int
    skip: str | None


def read_bed(path: PathLike) -> Iterator[BedRecord]:
    """The records in order, duplicates and all; comment, track, browser and blank lines are passed over.

    Raises:
        RegionError: an unreadable file or a malformed line, with its number.
    """
    with open_decompressed(path, RegionError) as lines:
        for number, raw in enumerate(lines, start=1):
            text = _text(raw, path, number)
            if not text.strip() or text.startswith("#") or text.split(maxsplit=1)[0] in _NOT_RECORDS:
                continue
            yield _record(text, path, number)


def place(
    records: Iterable[BedRecord],
    contigs: Mapping[str, int],
    names: Mapping[str, str],
    *,
    edge: Edge,
    file: PathLike | None = None,
) -> Iterator[PlacedRegion]:
    """Each record on its contig, in order.

    Args:
        records: what ``read_bed`` gives.
        contigs: names and lengths of the reference.
        names: the reference's name of each contig, from ``contigs.match_contigs``.
        edge: what a record gets that passes its contig's end: ``pad`` keeps what is there and counts the rest,
            ``skip`` skips it, ``error`` raises. One without any base on the contig is skipped under ``pad`` too.
        file: the BED file, for messages.

    Raises:
        RegionError: a record passes the end of its contig, and ``edge`` is ``error``.
    """
    for record in records:
        interval = record.interval
        if interval.contig not in names:
            yield PlacedRegion(record, None, 0, 0, NO_CONTIG)
            continue
        if not interval.length:
            yield PlacedRegion(record, None, 0, 0, ZERO_LENGTH)
            continue
        contig = names[interval.contig]
        on_contig = Interval(contig, interval.start, interval.end, interval.strand)
        inside, low, high = on_contig.clip(contigs[contig])
        if not (low or high):
            yield PlacedRegion(record, inside, 0, 0, None)
        elif edge == "error":
            raise RegionError(
                f"the region passes the end of {contig}, which has {contigs[contig]} bases",
                "pass --edge pad or --edge skip, or check that it is of the same assembly",
                file=file,
                line=record.line,
                field="end",
                value=interval.end,
            )
        elif not inside.length:
            yield PlacedRegion(record, None, 0, 0, OFF_CONTIG)
        elif edge == "skip":
            yield PlacedRegion(record, None, 0, 0, CONTIG_EDGE)
        else:
            yield PlacedRegion(record, inside, low, high, None)


def _text(raw: bytes, path: PathLike, number: int) -> str:
    if number == 1:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RegionError("the line is not UTF-8 text", "give a BED file", file=path, line=number) from error


def _record(text: str, path: PathLike, number: int) -> BedRecord:
    def fail(field: str, value: str, problem: str, remedy: str) -> RegionError:
        return RegionError(problem, remedy, file=path, line=number, field=field, value=value)

    columns = text.split("\t")
    if len(columns) < 3:
        spaced = len(text.split()) >= 3
        problem = "spaces where tabs should be" if spaced else "fewer than three columns"
        remedy = (
            "separate the columns by tabs (for example with tr -s ' ' '\\t')" if spaced else "give contig, start, end"
        )
        raise fail("columns", str(len(columns)), problem, remedy)
    contig, first, last = columns[:3]
    if not contig or contig != contig.strip():
        raise fail("contig", contig, "no name, or white space around it", "name the contig")
    start, end = (_coordinate(name, value, fail) for name, value in (("start", first), ("end", last)))
    if end < start:
        raise fail("end", last, f"it lies before the start, {start}", "BED needs start <= end")
    strand = columns[5] if len(columns) > 5 else "."
    if strand not in STRANDS:
        raise fail("strand", strand, "no strand", "use +, - or . in the sixth column")
    return BedRecord(number, Interval(contig, start, end, strand), columns[3] if len(columns) > 3 else "")


def _coordinate(name: str, value: str, fail: Callable[[str, str, str, str], RegionError]) -> int:
    if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    if value[:1] == "-" and value[1:].isdigit():
        raise fail(name, value, "a negative coordinate", "BED counts from 0")
    raise fail(name, value, "not a whole number", "write it out in digits, without exponent, commas or decimals")
