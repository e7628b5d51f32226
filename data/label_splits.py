"""Training, validation and test variants that share nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from genomamba.data.labels import LabelledVariant, LabelledVariants, nearest
from genomamba.data.pairs import variant_window
from genomamba.data.reference import Reference
from genomamba.errors import LabelError
from genomamba.genome.variant import normalise


class Splits(NamedTuple):
    """Labelled variants by what they are for; ``unused`` are those of groups that were not asked for."""

    train: list[LabelledVariant]
    valid: list[LabelledVariant]
    test: list[LabelledVariant]
    unused: list[LabelledVariant]


def split_by_group(found: LabelledVariants, train: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> Splits:
    """Whole genes to one split each, in file order.

    Raises:
        LabelError: a gene that no variant has or that two splits ask for, or a split without both classes.
    """
    wanted: dict[str, int] = {}
    known = Counter(item.gene for item in found.items)
    splits = Splits([], [], [], [])
    for number, genes in enumerate((train, valid, test)):
        for gene in genes:
            name = Splits._fields[number]
            if gene in wanted and wanted[gene] != number:
                other = Splits._fields[wanted[gene]]
                raise LabelError(f"the gene stands in {other} too", "give it to one split", field=name, value=gene)
            if gene not in known:
                remedy = f"there is {nearest(gene, [gene for gene, _ in known.most_common() if gene])}"
                raise LabelError("no labelled variant has this gene", remedy, file=found.source, field=name, value=gene)
            wanted[gene] = number
    for item in found.items:
        splits[wanted.get(item.gene, 3)].append(item)
    for name in ("train", "valid", "test"):
        check_classes(getattr(splits, name), name, found.source)
    return splits


def check_classes(items: Iterable[LabelledVariant], split: str, source: str) -> None:
    """
    Raises:
        LabelError: not both classes are there, so that nothing can be learned or measured.
    """
    counts = Counter(item.label for item in items)
    if not (counts[0] and counts[1]):
        raise LabelError(
            f"the split has {counts[1]} variants of class 1 and {counts[0]} of class 0",
            "give it groups that have both",
            file=source,
            field="split",
            value=split,
        )


def check_leakage(splits: Splits, reference: Reference, window: int, source: str) -> None:
    """Refuses splits that share what the model is to be measured on.

    Args:
        splits: ``unused`` does not matter.
        reference: the genome, which tells when two spellings are one variant.
        window: bases of genome that the model sees around a variant.
        source: name of the file.

    Raises:
        LabelError: two splits hold the same variant, or variants whose windows share a base; it names the first two
            rows and counts the variants concerned.
    """
    placed = sorted(_windows(splits, reference, window))
    clashes = list(_clashes(placed))
    if not clashes:
        return
    same = [pair for pair in clashes if pair[0].key == pair[1].key]
    first, second = (same or clashes)[0]
    concerned = {(place.split, place.line, place.key) for pair in clashes for place in pair}
    what = "the same variant" if same else f"variants whose windows of {window} bases overlap"
    raise LabelError(
        f"{first.split} (line {first.line}) and {second.split} (line {second.line}) hold {what}: "
        f"{_spelt(first)} and {_spelt(second)}; {len(concerned)} variants are concerned",
        "split by contig or gene so that no region is in two splits",
        file=source,
    )


class _Placed(NamedTuple):
    """A variant's window, and its normal form; sorts by where the window starts."""

    contig: str
    start: int
    end: int
    key: tuple[str, int, str, str]
    split: str
    line: int


def _windows(splits: Splits, reference: Reference, window: int) -> Iterator[_Placed]:
    for split in ("train", "valid", "test"):
        for item in getattr(splits, split):
            normal = normalise(item.variant, reference.sequence)
            span = variant_window(normal.trimmed(), reference.contigs[normal.contig], window)
            key = (normal.contig, normal.start, normal.ref, normal.alt)
            yield _Placed(normal.contig, span.start, span.end, key, split, item.line)


def _clashes(placed: list[_Placed]) -> Iterator[tuple[_Placed, _Placed]]:
    """Each variant with the one of another split, earlier in order, whose window reaches furthest right, and so
    overlaps it if any does; and with its twins in other splits."""
    furthest: dict[str, _Placed] = {}
    twins: dict[tuple[str, int, str, str], _Placed] = {}
    for place in placed:
        twin = twins.setdefault(place.key, place)
        if twin.split != place.split:
            yield twin, place
        for split, other in furthest.items():
            if split != place.split and other.contig == place.contig and other.end > place.start:
                yield other, place
        if (
            place.split not in furthest
            or furthest[place.split].contig != place.contig
            or furthest[place.split].end < place.end
        ):
            furthest[place.split] = place


def _spelt(place: _Placed) -> str:
    contig, start, ref, alt = place.key
    return f"{contig}:{start + 1}:{_short(ref)}>{_short(alt)}"


def _short(allele: str, limit: int = 20) -> str:
    return allele if len(allele) <= limit else f"{allele[:limit]}… ({len(allele)} bases)"
