"""The regions that a command is asked about: a BED file's, those named, or every contig whole."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Protocol

from genomamba.data.bed import BedRecord, Edge, PlacedRegion, place
from genomamba.data.references import Genome
from genomamba.errors import ConfigError, RegionError
from genomamba.genome.interval import Interval, parse_region
from genomamba.pipelines.bed_regions import ContigAliases, place_bed, skipped


class RegionOptions(Protocol):
    """What a command must know to find them."""

    @property
    def regions(self) -> str | None: ...
    @property
    def region(self) -> list[str]: ...
    @property
    def edge(self) -> Edge: ...
    @property
    def contig_aliases(self) -> ContigAliases: ...


def chosen_regions(options: RegionOptions, reference: Genome) -> list[PlacedRegion]:
    """In the order given; contigs in the reference's order. What cannot be placed has the reason why.

    Raises:
        RegionError: as `place_bed`, or a region string that is none, or names no contig of the reference.
        ConfigError: both kinds were given.
    """
    if options.regions is not None and options.region:
        raise ConfigError("regions are named already by --regions", "give one of the two", field="region")
    if options.regions is not None:
        return place_bed(options.regions, reference, edge=options.edge, contig_aliases=options.contig_aliases)
    if options.region:
        intervals = [parse_region(text, reference.contigs) for text in options.region]
    else:
        intervals = [Interval(contig, 0, length) for contig, length in reference.contigs.items()]
    names = {contig: contig for contig in reference.contigs}
    records = [BedRecord(0, interval, "" if options.region else interval.contig) for interval in intervals]
    return list(place(records, reference.contigs, names, edge=options.edge))


def side_by_side(placed: Sequence[PlacedRegion], reference: Genome, file: str | None) -> list[Interval]:
    """The intervals of regions that were not skipped, by the reference's order of contigs and by coordinate.

    Raises:
        RegionError: two of them overlap, where a track has one value per base.
    """
    rank = {contig: number for number, contig in enumerate(reference.contigs)}
    inside = [(region.interval, region.record.line) for region in placed if region.interval is not None]
    inside.sort(key=lambda each: (rank[each[0].contig], each[0].start, each[0].end))
    for (before, line), (interval, own) in itertools.pairwise(inside):
        if interval.overlaps(before):
            first, second = sorted((line, own))
            raise RegionError(
                f"it overlaps {f'line {first}' if file else before}, and a track has one value per base",
                "merge the regions, or write a .tsv",
                file=file,
                line=second if file else None,
                field="region",
                value=interval,
            )
    return [interval for interval, _ in inside]


def say_skipped(placed: Sequence[PlacedRegion], source: str) -> None:
    """Counts by reason, on stderr."""
    for reason, count in skipped(placed).items():
        print(f"{source}: {reason} {count}", file=sys.stderr)
