"""What a genome's training looks at, what it validates on, and what it never sees."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol

from genomamba.data.bed import Edge
from genomamba.data.references import Genome, References
from genomamba.data.splits import draw_blocks
from genomamba.data.windows import merged, sequenced_regions, subtract, whole_contigs
from genomamba.errors import ConfigError, RegionError
from genomamba.genome.interval import Interval, parse_region
from genomamba.pipelines.bed_regions import place_bed, skipped
from genomamba.pipelines.common_options import ContigAliases

if TYPE_CHECKING:
    from genomamba.pipelines.pretrain import Config


class SplitOptions(Protocol):
    """The options that say so."""

    @property
    def regions(self) -> str | None: ...
    @property
    def edge(self) -> Edge: ...
    @property
    def contig_aliases(self) -> ContigAliases: ...
    @property
    def valid(self) -> list[str]: ...
    @property
    def test(self) -> list[str]: ...
    @property
    def valid_bed(self) -> str | None: ...
    @property
    def test_bed(self) -> str | None: ...
    @property
    def valid_blocks(self) -> float: ...
    @property
    def block_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


class Splits(NamedTuple):
    include: list[Interval]  # where training may look, what is held out included
    valid: list[Interval]
    test: list[Interval]


def pretraining_splits(config: SplitOptions, genome: Genome) -> Splits:
    """The regions that the options name.

    Raises:
        RegionError: a region or a BED line that is not on the genome.
        ConfigError: a share of blocks outside [0, 1).
    """
    if not 0 <= config.valid_blocks < 1 or config.block_size < 1:
        raise ConfigError(
            "it must lie in [0, 1), and blocks have at least 1 base",
            "change it",
            field="valid_blocks",
            value=config.valid_blocks,
        )
    valid, test = (held_out_regions(name, getattr(config, name), genome) for name in ("valid", "test"))
    valid += [] if config.valid_bed is None else _from_bed(config, genome, config.valid_bed)
    test += [] if config.test_bed is None else _from_bed(config, genome, config.test_bed)
    valid, test = _once(valid), _once(test)
    refuse_overlap(valid, test)
    include = whole_contigs(genome) if config.regions is None else _from_bed(config, genome, config.regions)
    if config.valid_blocks:
        left = sequenced_regions(genome, subtract(include, [*valid, *test]))
        blocks = draw_blocks(left, config.block_size, config.valid_blocks, config.seed)
        share = sum(block.length for block in blocks) / max(1, sum(region.length for region in left))
        if not 0.75 <= share / config.valid_blocks <= 1.25:
            print(
                f"blocks of {config.block_size:,} bases hold out {share:.1%} instead of {config.valid_blocks:.1%}; "
                "a smaller --block-size comes closer",
                file=sys.stderr,
            )
        valid += blocks
    return Splits(include, valid, test)


def _once(regions: list[Interval]) -> list[Interval]:
    """The same bases in the same order, without those that a region before has."""
    out: list[Interval] = []
    if sum(region.length for region in merged(regions)) == sum(region.length for region in regions):
        return regions
    for region in regions:
        out += subtract([region], out)
    return out


def mixture(config: Config, genome: References) -> list[tuple[frozenset[str], float]] | None:
    """Each genome's contigs and its share of the windows; None: by size.

    Raises:
        ConfigError: not one share per genome, or no positive one.
    """
    shares = config.mixture
    if not shares:
        return None
    if len(shares) != len(genome.groups) or min(shares) < 0 or not sum(shares):
        raise ConfigError(
            f"{len(genome.groups)} genomes need as many shares, none below 0 and not all 0",
            "give one number per --reference",
            field="mixture",
            value=shares,
        )
    return [(frozenset(contigs), share) for contigs, share in zip(genome.groups, shares, strict=True)]


def held_out_regions(name: str, regions: list[str], reference: Genome) -> list[Interval]:
    """The regions of an option; raises RegionError for one that leaves its contig."""
    found = [parse_region(text, reference.contigs) for text in regions]
    for interval in found:
        if interval.end > (length := reference.contigs[interval.contig]):
            raise RegionError(
                f"the contig has {length} bases", "check that it is of the same assembly", field=name, value=interval
            )
    return found


def refuse_overlap(valid: list[Interval], test: list[Interval]) -> None:
    """Raises RegionError where a validation and a test region share a base."""
    for one in valid:
        for other in test:
            if one.overlaps(other):
                raise RegionError(
                    f"it overlaps the validation region {one}", "hold out each base once", field="test", value=other
                )


def _from_bed(config: SplitOptions, genome: Genome, path: str) -> list[Interval]:
    placed = place_bed(path, genome, edge=config.edge, contig_aliases=config.contig_aliases)
    for reason, count in skipped(placed).items():
        print(f"{path}: {reason} {count}", file=sys.stderr)
    return [region.interval for region in placed if region.interval is not None]
