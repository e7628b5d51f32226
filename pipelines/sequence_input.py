"""Labelled sequences as `finetune sequences` and `evaluate sequences` are given them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from genomamba.data.sequence_groups import SequenceGrouping
from genomamba.data.sequences import Columns, LabelledSequences, read_named_sequences, read_sequence_table
from genomamba.errors import ConfigError, LabelError
from genomamba.pipelines.open_reference import open_reference


class SequenceOptions(Protocol):
    """The options that say where sequences and labels are."""

    @property
    def input(self) -> str: ...
    @property
    def labels(self) -> str | None: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def rna(self) -> bool: ...


def load_sequences(
    options: SequenceOptions, strata: tuple[str, ...] = (), *, with_genes: bool = False
) -> LabelledSequences:
    """A table by itself; with ``labels`` a FASTA, and with ``reference`` too a BED on it.

    Args:
        options: that say where.
        strata: names of columns that are wanted too.
        with_genes: the column of genes has to be there.

    Raises:
        ConfigError: options that do not go together, or ``columns`` that are not understood.
        LabelError: see `data.sequences`.
    """
    columns = _columns(options.columns)._replace(strata=tuple(name.lower() for name in strata))
    if with_genes:
        columns = columns._replace(named=(*columns.named, columns.gene))
    if options.labels is None:
        if options.reference is not None:
            raise ConfigError("a BED needs labels", LABELS, field="reference")
        if options.input.lower().removesuffix(".gz").removesuffix(".bgz").endswith(UNLABELLED):
            raise LabelError("there are no labels in FASTA and BED", LABELS, file=options.input)
        return read_sequence_table(options.input, columns, rna=options.rna)
    if options.reference is None:
        return read_named_sequences(open_reference(options.input, rna=options.rna), options.labels, columns)
    return read_named_sequences(
        open_reference(options.reference, rna=options.rna), options.labels, columns, options.input
    )


UNLABELLED = (".fa", ".fasta", ".fna", ".bed")
LABELS = "give --labels, a table of name and label"


def _columns(words: list[str]) -> Columns:
    known = ("sequence", "label", "split", "name", "gene")
    given: dict[str, Any] = {}
    for word in words:
        field, equals, column = word.partition("=")
        if field not in known or not equals or not column:
            raise ConfigError(
                "it is not understood", f"write FIELD=COLUMN, of {', '.join(known)}", field="columns", value=word
            )
        given[field] = column.lower()
    return Columns(**given, named=tuple(given[field] for field in ("split", "gene") if field in given))


def in_their_splits(
    found: LabelledSequences, configuration: Mapping[str, Any], *, all_there: bool = True
) -> LabelledSequences:
    """The sequences in the splits that a run's configuration asks for: their column's, unless it names another way.

    With ``all_there`` each group that it names has to be there.

    Raises:
        LabelError: see `data.sequence_groups`.
    """
    by = configuration.get("split_by", "column")
    if by == "column":
        return found
    dev, test = (tuple(configuration[name]) for name in ("dev", "test"))
    of_blocks = {name: configuration[name] for name in ("block_size", "dev_share", "test_share", "seed")}
    return SequenceGrouping(by, dev, test, **of_blocks).mark(found, all_there=all_there)
