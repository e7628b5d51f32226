"""The records that a command was given, each with what became of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from genomamba.data.bed import PlacedRegion
from genomamba.data.references import Genome
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

REGION_COLUMNS: dict[str, type[str] | type[int]] = {
    "contig": str,
    "start": int,
    "end": int,
    "strand": str,
    "name": str,
    "status": str,
}
_BLOCK = 1 << 20


class Row(NamedTuple):
    """A record of the input."""

    region: PlacedRegion
    status: str

    @property
    def is_read(self) -> bool:
        return not self.status.startswith("SKIP_")

    @property
    def interval(self) -> Interval:
        """Where it is read, which it must be."""
        assert self.region.interval is not None
        return self.region.interval


def region_rows(placed: Sequence[PlacedRegion], genome: Genome) -> list[Row]:
    """Each with OK, EDGE (cut where its contig ends), or SKIP_ and why; what holds no base is skipped too."""
    return [Row(region, _status(region, genome)) for region in placed]


def read_intervals(rows: Sequence[Row]) -> list[Interval]:
    """Of those that are read."""
    return [row.interval for row in rows if row.is_read]


def say_statuses(rows: Sequence[Row]) -> None:
    """Counts, on stderr."""
    for status, count in sorted(Counter(row.status for row in rows).items()):
        print(f"  {status:<20}{count:>10,}", file=sys.stderr)


def region_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """What is said of each record, as `REGION_COLUMNS` has it: as it was read, and its status."""
    records = [row.region.record for row in rows]
    return {
        "contig": [record.interval.contig for record in records],
        "start": [record.interval.start for record in records],
        "end": [record.interval.end for record in records],
        "strand": [record.interval.strand for record in records],
        "name": [record.name for record in records],
        "status": [row.status for row in rows],
    }


def _status(region: PlacedRegion, genome: Genome) -> str:
    if region.interval is None:
        return region.skip or ""
    if not _has_base(region.interval, genome):
        return "SKIP_NO_BASES"
    return "EDGE" if region.pad_low or region.pad_high else "OK"


def _has_base(region: Interval, genome: Genome) -> bool:
    for start in range(region.start, region.end, _BLOCK):
        ids = genome.ids(Interval(region.contig, start, min(start + _BLOCK, region.end)))
        if ((ids >= alphabet.A) & (ids <= alphabet.T)).any():
            return True
    return False
