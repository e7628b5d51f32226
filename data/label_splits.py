"""Training, validation and test variants that share nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genomamba.data.labels import LabelledVariant, LabelledVariants
from genomamba.data.pairs import place_window
from genomamba.data.reference import Reference
from genomamba.data.rows import nearest
from genomamba.data.sequence_splits import sequence_key
from genomamba.errors import LabelError
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant, normalise

_ROLL = 64  # bases by which left-alignment may move an indel; further ones are found by `check_leakage`
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Grouping:
    """What is never shared by two splits.

    Args:
        by: gene, contig, block of the genome, or whatever a column says.
        column: of ``column``.
        block_size: bases of a block; a block belongs to a split by a hash of its place and the seed, and variants
            whose windows reach into a block of another split belong to none.
        valid_share: of blocks, for validation.
        test_share: of blocks, for test.
        seed: of blocks.
        window: bases of genome that the model sees around a variant.
    """

    by: Literal["gene", "contig", "block", "column"] = "gene"
    column: str = "split"
    block_size: int = 1_000_000
    valid_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    window: int = 1

    @property
    def what(self) -> str:
        """What a group is called."""
        return self.column if self.by == "column" else self.by

    def of(self, item: LabelledVariant) -> str:
        """The variant's group; of blocks, the split itself, empty at an edge."""
        if self.by == "block":
            middle = (item.variant.start + item.variant.end) // 2
            reach = self.window // 2 + len(item.variant.ref) + len(item.variant.alt) + _ROLL
            span = Interval(item.variant.contig, max(0, middle - reach), max(0, middle + reach) + 1)
            return split_of_span(span, self.block_size, self.seed, self.valid_share, self.test_share)
        return item.column(self.column if self.by == "column" else self.by)


def split_of_span(span: Interval, block_size: int, seed: int, valid_share: float, test_share: float) -> str:
    """train, valid or test, by a hash of the seed and of the block that the span is in.

    Empty where it reaches into blocks of different splits.
    """
    found = set()
    for block in range(span.start // block_size, (span.end - 1) // block_size + 1):
        digest = hashlib.blake2b(f"{seed} {span.contig} {block}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "little") / 2**64
        found.add("test" if draw < test_share else "valid" if draw < test_share + valid_share else "train")
    return found.pop() if len(found) == 1 else ""


GENES = Grouping()


class Splits(NamedTuple):
    """Labelled variants by what they are for; ``unused`` are those of groups that were not asked for."""

    train: list[LabelledVariant]
    valid: list[LabelledVariant]
    test: list[LabelledVariant]
    unused: list[LabelledVariant]


def split_by_group(
    found: LabelledVariants,
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    grouping: Grouping = GENES,
) -> Splits:
    """Whole groups to one split each, in file order.

    Raises:
        LabelError: a group that no variant has or that two splits ask for, or a split with groups that lacks a class.
    """
    wanted: dict[str, int] = {}
    groups = [grouping.of(item) for item in found.items]
    known, what = Counter(groups), grouping.what
    splits = Splits([], [], [], [])
    for number, genes in enumerate((train, valid, test)):
        for gene in genes:
            name = Splits._fields[number]
            if gene in wanted and wanted[gene] != number:
                other = Splits._fields[wanted[gene]]
                raise LabelError(f"the {what} stands in {other} too", "give it to one split", field=name, value=gene)
            if gene not in known:
                raise no_such_group(gene, known, found.source, what, name)
            wanted[gene] = number
    for item, group in zip(found.items, groups, strict=True):
        splits[wanted.get(group, 3)].append(item)
    for name, genes in zip(_SPLITS, (train, valid, test), strict=True):
        if genes:
            check_classes(getattr(splits, name), name, found.source)
    return splits


def no_such_group(group: str, known: Counter[str], source: str, what: str, field: str) -> LabelError:
    """That no variant is of ``group``, which option ``field`` asks for; ``known`` are there, of the kind ``what``."""
    named = [name for name, _ in known.most_common() if name]
    remedy = f"there is {nearest(group, named)}"
    if not known:
        remedy = "there is no labelled variant at all"
    elif not named:
        remedy = "none names any; add a column or INFO key for it, or choose another --split-by"
    return LabelError(f"no labelled variant has this {what}", remedy, file=source, field=field, value=group)


def check_classes(items: Iterable[LabelledVariant], split: str, source: str) -> None:
    """Refuses a split that nothing can be learned from or measured on.

    Raises:
        LabelError: it lacks one class or both.
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
        LabelError: two splits hold the same variant, variants whose windows share a base, or windows elsewhere of the
            same sequence, on either strand; it names the first two rows and counts the variants concerned.
    """
    placed = sorted(_windows(splits, reference, window))
    clashes = [*_with_an_earlier(placed), *_with_a_later(placed)]
    same = [clash for clash in clashes if clash[0].key == clash[1].key]
    what = "the same variant" if same else f"variants whose windows of {window} bases overlap"
    remedy = "split by contig or gene so that no region is in two splits"
    if not clashes:
        clashes = list(_of_one_sequence(placed, reference))
        what = f"variants whose windows of {window} bases are one sequence, or its reverse complement"
        remedy = "give copies of a sequence to one split, or leave one out"
    if not clashes:
        return
    first, second = sorted((same or clashes)[0], key=lambda place: place.line)
    count = len({place for place, _ in clashes})
    raise LabelError(
        f"{first.split} (line {first.line}) and {second.split} (line {second.line}) hold {what}: "
        f"{_spelt(first, reference)} and {_spelt(second, reference)}; {count} variants are concerned",
        remedy,
        file=source,
    )


def window_keys(items: Iterable[LabelledVariant], reference: Reference, window: int) -> NDArray[np.uint64]:
    """What `check_leakage` knows a window's sequence by, on either strand: a hash for each variant, (N,)."""
    spans = (place_window(reference, item.variant, window).span for item in items)
    return np.fromiter((sequence_key(reference.ids(span)) for span in spans), dtype=np.uint64)


class _Placed(NamedTuple):
    """A variant's window, and its change, of which all spellings give one; sorts by where the window starts."""

    contig: str
    start: int
    end: int
    key: tuple[str, int, str, str]
    line: int
    split: str


def _windows(splits: Splits, reference: Reference, window: int) -> Iterator[_Placed]:
    for split in _SPLITS:
        for item in getattr(splits, split):
            core, _, span, _ = place_window(reference, item.variant, window)
            key = (core.contig, core.start, core.ref, core.alt)
            yield _Placed(core.contig, span.start, span.end, key, item.line, split)


def _of_one_sequence(placed: list[_Placed], reference: Reference) -> Iterator[tuple[_Placed, _Placed]]:
    """Each variant whose window reads as the first such, of another split, and that one with it."""
    first: dict[int, _Placed] = {}
    for place in placed:
        key = sequence_key(reference.ids(Interval(place.contig, place.start, place.end)))
        other = first.setdefault(key, place)
        if other.split != place.split:
            yield from ((place, other), (other, place))


def _with_an_earlier(placed: list[_Placed]) -> Iterator[tuple[_Placed, _Placed]]:
    """Each variant that overlaps an earlier one of another split, with one such; with its twin where it has one."""
    furthest: dict[tuple[str, str], _Placed] = {}  # by contig and split: whose window ends last
    for place in placed:
        for split in _SPLITS:
            other = furthest.get((place.contig, split))
            if split != place.split and other and other.end > place.start:
                yield place, other
        here = (place.contig, place.split)
        # where two end together the later one stays, so that twins meet
        if here not in furthest or furthest[here].end <= place.end:
            furthest[here] = place


def _with_a_later(placed: list[_Placed]) -> Iterator[tuple[_Placed, _Placed]]:
    """Each variant that overlaps a later one of another split, with the nearest such."""
    nearest_start: dict[tuple[str, str], _Placed] = {}
    for place in reversed(placed):
        for split in _SPLITS:
            other = nearest_start.get((place.contig, split))
            if split != place.split and other and other.start < place.end:
                yield place, other
        nearest_start[place.contig, place.split] = place


def _spelt(place: _Placed, reference: Reference) -> str:
    normal = normalise(Variant(*place.key), reference.sequence)
    return f"{normal.contig}:{normal.start + 1}:{_short(normal.ref)}>{_short(normal.alt)}"


def _short(allele: str, limit: int = 20) -> str:
    return allele if len(allele) <= limit else f"{allele[:limit]}… ({len(allele)} bases)"
