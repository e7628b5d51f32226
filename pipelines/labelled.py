"""Labelled variants as the commands want them: checked against the reference, and split by gene."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from genomamba.data.label_splits import Grouping, check_leakage, split_by_group, window_keys
from genomamba.data.labels import (
    BUILT_IN,
    LABELS,
    LabelledVariant,
    LabelledVariants,
    read_label_mapping,
    read_labelled_table,
    read_labelled_vcf,
)
from genomamba.data.pairs import place_window
from genomamba.data.prescan import prescan
from genomamba.data.reference import Reference
from genomamba.data.table import VariantTable
from genomamba.data.vcf import VcfReader
from genomamba.data.windows import merged
from genomamba.errors import ConfigError, LabelError
from genomamba.genome.interval import Interval, parse_region
from genomamba.pipelines.common_options import ContigAliases


class LabelOptions(Protocol):
    """The options that `finetune variants` and `evaluate variants` share."""

    @property
    def input(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def labels(self) -> str | None: ...
    @property
    def contig_aliases(self) -> ContigAliases: ...
    @property
    def max_mismatch_frac(self) -> float: ...


class SplitOptions(LabelOptions, Protocol):
    """The options of `finetune variants`."""

    @property
    def window(self) -> int: ...
    @property
    def split_by(self) -> Literal["gene", "contig", "block", "column"]: ...
    @property
    def split_column(self) -> str: ...
    @property
    def block_size(self) -> int: ...
    @property
    def valid_share(self) -> float: ...
    @property
    def test_share(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def train(self) -> list[str]: ...
    @property
    def valid(self) -> list[str]: ...
    @property
    def test(self) -> list[str]: ...


class LabelledSplits(NamedTuple):
    """Labelled variants by split.

    Attributes:
        items: by split: train, valid and test.
        grouping: what splits do not share.
        groups: by split, the groups in it.
        unused: variants of no split.
        labels: what was taken for a class.
    """

    items: dict[str, list[LabelledVariant]]
    grouping: Grouping
    groups: dict[str, list[str]]
    unused: int
    labels: dict[str, int]


def load_splits(options: SplitOptions, reference: Reference) -> LabelledSplits:
    """train, valid and test variants that share no window.

    Raises:
        ConfigError: no groups for training or validation, or options that do not go together.
        LabelError: a split without both classes, an unknown group, or splits that leak.
    """
    grouping = _grouping(options)
    groups = {name: list(getattr(options, name)) for name in SPLITS}
    if options.split_by == "block":
        groups = {name: [name] for name in SPLITS if name != "test" or options.test_share}
    elif options.split_by == "column" and not any(groups.values()):
        groups = {name: [name] for name in SPLITS}
    for name in ("train", "valid"):
        if not groups[name]:
            what = options.split_by.upper()
            raise ConfigError(f"no {options.split_by}s are given", f"name some: --{name} {what} [{what} …]", field=name)
    labels = _labels(options.labels)
    found = _read(options, reference, options.window, labels, _extra(grouping))
    splits = split_by_group(found, groups["train"], groups["valid"], groups.get("test", []), grouping)
    check_leakage(splits, reference, options.window, found.source)
    items = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return LabelledSplits(items, grouping, groups, len(splits.unused), labels)


SPLITS = ("train", "valid", "test")


def _grouping(options: SplitOptions) -> Grouping:
    if options.split_by == "block":
        if any(getattr(options, name) for name in SPLITS):
            raise ConfigError("blocks have no names", "leave out --train, --valid and --test", field="split_by")
        if not 0 < options.valid_share < 1 - options.test_share:
            raise ConfigError(
                "it must lie between 0 and what test leaves",
                "change it",
                field="valid_share",
                value=options.valid_share,
            )
        if options.block_size < 2 * options.window:
            raise ConfigError(
                "a block must hold two windows at least", "raise it", field="block_size", value=options.block_size
            )
    return Grouping(
        by=options.split_by,
        column=options.split_column,
        block_size=options.block_size,
        valid_share=options.valid_share,
        test_share=options.test_share,
        seed=options.seed,
        window=options.window,
    )


def load_groups(
    options: LabelOptions,
    reference: Reference,
    grouping: Grouping,
    groups: Sequence[str],
    labels: Mapping[str, int],
    strata: Sequence[str],
) -> tuple[LabelledVariants, list[LabelledVariant]]:
    """The labelled variants of a file, and those of the groups.

    Args:
        options: where they are.
        reference: the genome.
        grouping: of the model that is to be measured.
        groups: the ones wanted.
        labels: what the model takes for a class; the options' own mapping goes before it.
        strata: columns that figures are to be split by.
    """
    own = _labels(options.labels) if options.labels is not None else labels
    found = _read(options, reference, grouping.window, own, _extra(grouping, strata))
    return found, [item for item in found.items if grouping.of(item) in groups]


def _labels(path: str | None) -> dict[str, int]:
    return dict(LABELS) if path is None else read_label_mapping(path)


def _extra(grouping: Grouping, strata: Sequence[str] = ()) -> list[str]:
    """Columns to be read beside those that are always there."""
    wanted = [*([grouping.column] if grouping.by == "column" else []), *strata]
    return list(dict.fromkeys(name for name in wanted if name not in BUILT_IN))


def seen_regions(splits: dict[str, list[LabelledVariant]], reference: Reference, window: int) -> list[Interval]:
    """Every base that a window around a training or validation variant holds."""
    return merged(
        place_window(reference, item.variant, window).span for name in ("train", "valid") for item in splits[name]
    )


def refuse_seen(items: Sequence[LabelledVariant], seen: Sequence[str], reference: Reference, window: int) -> None:
    """Raises LabelError where a variant's window holds a base of ``seen``, regions as `seen_regions` gave them."""
    regions = [parse_region(text, reference.contigs) for text in seen]
    starts = {
        contig: ([r.start for r in regions if r.contig == contig], [r.end for r in regions if r.contig == contig])
        for contig in {r.contig for r in regions}
    }
    leaking = []
    for item in items:
        span = place_window(reference, item.variant, window).span
        begins, ends = starts.get(span.contig, ([], []))
        before = bisect_left(begins, span.end)  # merged regions are in order, so the last that begins before is enough
        if before and ends[before - 1] > span.start:
            leaking.append(item)
    if leaking:
        raise LabelError(
            f"{len(leaking)} of {len(items)} variants lie in windows that training or validation has seen, "
            f"the first at line {leaking[0].line} ({leaking[0].variant})",
            "measure on variants of other regions",
            field="genes",
            value=leaking[0].gene,
        )


def refuse_copies(
    items: Sequence[LabelledVariant], seen: NDArray[np.uint64], reference: Reference, window: int
) -> None:
    """Raises LabelError where a variant's window reads, on either strand, as one of those with the keys ``seen``.

    `refuse_seen` looks at places alone, and a copy may lie elsewhere in the genome.
    """
    copies = np.flatnonzero(np.isin(window_keys(items, reference, window), seen))
    if copies.size:
        first = items[copies[0]]
        raise LabelError(
            f"{copies.size} of {len(items)} variants lie in copies, elsewhere or on the other strand, of windows that "
            f"training or validation has seen, the first at line {first.line} ({first.variant})",
            "measure on variants of other regions",
            field="genes",
            value=first.gene,
        )


def _read(
    options: LabelOptions, reference: Reference, window: int, labels: Mapping[str, int], extra: Sequence[str]
) -> LabelledVariants:
    with ExitStack() as stack:
        is_table = options.input.removesuffix(".gz").endswith((".tsv", ".csv", ".parquet"))
        source = VariantTable(options.input) if is_table else stack.enter_context(VcfReader(options.input))
        checked = prescan(
            source,
            reference,
            window=window,
            aliases=None if options.contig_aliases == "none" else "auto",
            max_mismatch=options.max_mismatch_frac,
        )
        how: dict[str, Any] = {"window": window, "labels": labels, "extra": extra}
        if isinstance(source, VariantTable):
            return read_labelled_table(source, reference, checked.contigs, key=options.label or "label", **how)
        return read_labelled_vcf(source, reference, checked.contigs, key=options.label or "CLNSIG", **how)
