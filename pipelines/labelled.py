"""Labelled variants as the commands want them: checked against the reference, and split by gene."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal, Protocol

from genomamba.data.label_splits import check_leakage, split_by_group
from genomamba.data.labels import LabelledVariant, LabelledVariants, read_labelled_table, read_labelled_vcf
from genomamba.data.pairs import variant_window
from genomamba.data.prescan import prescan
from genomamba.data.reference import Reference
from genomamba.data.table import VariantTable
from genomamba.data.vcf import VcfReader
from genomamba.data.windows import merged
from genomamba.errors import ConfigError, LabelError
from genomamba.genome.interval import Interval, parse_region


class LabelOptions(Protocol):
    """The options that `finetune variants` and `evaluate variants` share."""

    @property
    def input(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def contig_aliases(self) -> Literal["none", "auto"]: ...
    @property
    def max_mismatch_frac(self) -> float: ...


class SplitOptions(LabelOptions, Protocol):
    """The options of `finetune variants`."""

    @property
    def window(self) -> int: ...
    @property
    def train(self) -> list[str]: ...
    @property
    def valid(self) -> list[str]: ...
    @property
    def test(self) -> list[str]: ...


def load_splits(options: SplitOptions, reference: Reference) -> dict[str, list[LabelledVariant]]:
    """train, valid and test variants that share no window.

    Raises:
        ConfigError: no genes for training or validation.
        LabelError: a split without both classes, an unknown gene, or splits that leak.
    """
    for name in ("train", "valid"):
        if not getattr(options, name):
            raise ConfigError("no genes are given", f"name some: --{name} GENE [GENE …]", field=name)
    found = _read(options, reference, options.window)
    splits = split_by_group(found, options.train, options.valid, options.test)
    check_leakage(splits, reference, options.window, found.source)
    return {"train": splits.train, "valid": splits.valid, "test": splits.test}


def load_genes(
    options: LabelOptions, reference: Reference, window: int, genes: Sequence[str]
) -> tuple[LabelledVariants, list[LabelledVariant]]:
    """The labelled variants of a file, and those of the genes."""
    found = _read(options, reference, window)
    return found, [item for item in found.items if item.gene in genes]


def seen_regions(splits: dict[str, list[LabelledVariant]], reference: Reference, window: int) -> list[Interval]:
    """Every base that a window around a training or validation variant holds."""
    return merged(
        variant_window(item.variant, reference.contigs[item.variant.contig], window)
        for name in ("train", "valid")
        for item in splits[name]
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
        span = variant_window(item.variant, reference.contigs[item.variant.contig], window)
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


def _read(options: LabelOptions, reference: Reference, window: int) -> LabelledVariants:
    with ExitStack() as stack:
        is_table = options.input.removesuffix(".gz").endswith((".tsv", ".csv"))
        source = VariantTable(options.input) if is_table else stack.enter_context(VcfReader(options.input))
        checked = prescan(
            source,
            reference,
            window=window,
            aliases=None if options.contig_aliases == "none" else "auto",
            max_mismatch=options.max_mismatch_frac,
        )
        if isinstance(source, VariantTable):
            return read_labelled_table(source, reference, checked.contigs, window=window, key=options.label or "label")
        return read_labelled_vcf(source, reference, checked.contigs, window=window, key=options.label or "CLNSIG")
