"""The regions of a BED file on a reference."""

from __future__ import annotations

from collections.abc import Sequence

from genomamba.data.bed import Edge, PlacedRegion, place, read_bed
from genomamba.data.contigs import match_contigs
from genomamba.data.references import Genome
from genomamba.errors import RegionError
from genomamba.pipelines.common_options import ContigAliases


def place_bed(path: str, reference: Genome, *, edge: Edge, contig_aliases: ContigAliases) -> list[PlacedRegion]:
    """Every record in order, with its place on the reference or the reason why it has none.

    Raises:
        RegionError: a malformed line, no record, no contig in common, or an overhang with ``edge="error"``.
    """
    records = list(read_bed(path))
    if not records:
        raise RegionError("it holds no region", "give at least one line of contig, start, end", file=path)
    names = match_contigs(
        {record.interval.contig: None for record in records},
        reference.contigs,
        aliases="auto" if contig_aliases == "auto" else None,
        file=path,
        reference=reference.path,
    )
    return list(place(records, reference.contigs, names, edge=edge, file=path))


def skipped(regions: Sequence[PlacedRegion]) -> dict[str, int]:
    """How many records were skipped, by reason."""
    reasons = [region.skip for region in regions if region.skip is not None]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
