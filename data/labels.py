"""Labelled variants: what a variant classifier learns from and is measured on."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from genomamba.data.compressed import open_decompressed
from genomamba.data.reference import Reference
from genomamba.data.rows import nearest
from genomamba.data.table import VariantTable
from genomamba.data.variants import Status, classify
from genomamba.data.vcf import VcfReader, VcfRecord, info_value
from genomamba.errors import LabelError
from genomamba.genome.variant import Variant

#: ClinVar's CLNSIG, and plain 0 and 1; whatever else stands there is no label
LABELS: Mapping[str, int] = {
    "Pathogenic": 1,
    "Likely_pathogenic": 1,
    "Pathogenic/Likely_pathogenic": 1,
    "Benign": 0,
    "Likely_benign": 0,
    "Benign/Likely_benign": 0,
    "1": 1,
    "0": 0,
}
ABSENT = "(absent)"
ONE_FOR_SEVERAL = "(one value for several ALTs)"


class LabelledVariant(NamedTuple):
    """One allele with its class.

    Attributes:
        variant: on the reference's contig names, alleles in upper case.
        label: 1 or 0.
        gene: the first gene of GENEINFO, or the table's ``gene``; empty where there is none.
        consequence: the first term of MC (ClinVar sorts them by Sequence Ontology number, not by severity), or the
            table's ``consequence``; empty where there is none.
        line: where it was read.
        extra: INFO keys or columns that were asked for, and what stands in them.
    """

    variant: Variant
    label: int
    gene: str
    consequence: str
    line: int
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def type(self) -> str:
        """``SNV``, or ``INDEL`` for everything else."""
        return "SNV" if self.variant.kind == "SNV" else "INDEL"

    def column(self, name: str) -> str:
        """What stands under one of BUILT_IN, or under a name that was asked for."""
        if name in BUILT_IN:
            return self.variant.contig if name == "contig" else getattr(self, name)
        return dict(self.extra)[name]


BUILT_IN = ("gene", "consequence", "type", "contig")


@dataclass(frozen=True)
class LabelledVariants:
    """What a labelled file holds.

    Args:
        source: name of the file.
        items: alleles that have a label and can be scored, in file order.
        unlabelled: alleles without a label, by what stands in its place.
        skipped: labelled alleles that cannot be scored, by reason.
    """

    source: str
    items: list[LabelledVariant]
    unlabelled: Counter[str]
    skipped: Counter[Status]


class _Labelled(NamedTuple):
    """A record with one label text per ALT."""

    record: VcfRecord
    labels: tuple[str, ...]
    gene: str
    consequence: str
    extra: tuple[tuple[str, str], ...]


def read_labelled_vcf(
    reader: VcfReader,
    reference: Reference,
    contigs: Mapping[str, str],
    *,
    window: int | None = None,
    key: str = "CLNSIG",
    labels: Mapping[str, int] = LABELS,
    extra: Sequence[str] = (),
) -> LabelledVariants:
    """The labelled alleles of a VCF whose labels stand in INFO; other values of the key are counted as unlabelled.

    Args:
        reader: the open file; ``prescan`` says whether it fits the reference.
        reference: the genome.
        contigs: the file's contig names to the reference's, from ``prescan``.
        window: see ``classify``.
        key: INFO key of the label. A record with several ALTs needs one value for each, at commas.
        labels: value to 1 or 0.
        extra: other INFO keys to keep; empty where a record lacks one.

    Raises:
        LabelError: there are no records, none has the key, or no value of it is a label.
    """
    found = _collect(
        reader.name,
        (
            _Labelled(
                record,
                _label_per_alt(info_value(record.info, key), len(record.alts)),
                first_gene(record.info),
                first_consequence(record.info),
                tuple((name, info_value(record.info, name) or "") for name in extra),
            )
            for record in reader
        ),
        reference,
        contigs,
        window,
        labels,
    )
    if found.items or found.skipped:
        return found
    if set(found.unlabelled) <= {ABSENT}:
        declared = [line.partition("ID=")[2].partition(",")[0] for line in reader.header if line.startswith("##INFO=")]
        remedy = f"the header declares {nearest(key, declared)}"
        raise LabelError("no record has this INFO key", remedy, file=reader.name, field="INFO", value=key)
    values = ", ".join(value for value, _ in found.unlabelled.most_common(5))
    raise LabelError(
        "none of its values is a label",
        f"map them to 0 and 1; found {values}",
        file=reader.name,
        field="INFO",
        value=key,
    )


def read_labelled_table(
    table: VariantTable,
    reference: Reference,
    contigs: Mapping[str, str],
    *,
    window: int | None = None,
    key: str = "label",
    labels: Mapping[str, int] = LABELS,
    extra: Sequence[str] = (),
) -> LabelledVariants:
    """The variants of a table; its columns ``gene`` and ``consequence`` are used where it has them.

    Args:
        table: the file.
        reference: the genome.
        contigs: see ``read_labelled_vcf``.
        window: see ``classify``.
        key: column of the label.
        labels: value to 1 or 0.
        extra: other columns to keep.

    Raises:
        LabelError: a column is missing, there are no rows, or a row's label is empty, NaN or not among ``labels``.
    """
    for field, name in (("label", key), *(("column", name) for name in extra)):
        if name not in table.columns:
            raise LabelError(
                "there is no such column",
                f"there is {nearest(name, table.columns)}",
                file=table.name,
                field=field,
                value=name,
            )

    def rows() -> Iterable[_Labelled]:
        for record, row in table.rows():
            if row[key] not in labels:
                raise LabelError(
                    "this is no label",
                    f"use one of {', '.join(labels)}, map it with --labels, or delete the row",
                    file=table.name,
                    line=record.line,
                    field=key,
                    value=row[key],
                )
            kept = tuple((name, row[name]) for name in extra)
            yield _Labelled(record, (row[key],), row.get("gene", ""), row.get("consequence", ""), kept)

    return _collect(table.name, rows(), reference, contigs, window, labels)


def read_label_mapping(path: str | os.PathLike[str]) -> dict[str, int]:
    """What to take for ``LABELS`` instead: lines of a value, a tab, and 0 or 1.

    Raises:
        LabelError: a line of another form, or a value with two classes.
    """
    mapping: dict[str, int] = {}
    with io.TextIOWrapper(open_decompressed(path, LabelError), encoding="utf-8") as stream:
        for line, text in enumerate(stream, start=1):
            value, tab, label = text.rstrip("\n").partition("\t")
            if not tab or label not in ("0", "1"):
                raise LabelError(
                    "this maps nothing to a class",
                    "write VALUE, a tab, and 0 or 1",
                    file=path,
                    line=line,
                    field="label",
                )
            if mapping.setdefault(value, int(label)) != int(label):
                raise LabelError(
                    "the value has two classes", "keep one", file=path, line=line, field="label", value=value
                )
    return mapping


def first_gene(info: str) -> str:
    """Symbol of the first gene of ClinVar's GENEINFO, empty without one."""
    return (info_value(info, "GENEINFO") or "").partition("|")[0].partition(":")[0]


def first_consequence(info: str) -> str:
    """First term of ClinVar's MC, empty without one."""
    return (info_value(info, "MC") or "").partition(",")[0].partition("|")[2]


def _label_per_alt(value: str | None, alts: int) -> tuple[str, ...]:
    if value is None:
        return (ABSENT,) * alts
    if alts == 1:
        return (value,)
    each = tuple(value.split(","))
    return each if len(each) == alts else (ONE_FOR_SEVERAL,) * alts


def _collect(
    source: str,
    records: Iterable[_Labelled],
    reference: Reference,
    contigs: Mapping[str, str],
    window: int | None,
    labels: Mapping[str, int],
) -> LabelledVariants:
    found = LabelledVariants(source, [], Counter(), Counter())
    record = None
    for record, texts, gene, consequence, extra in records:
        if not any(text in labels for text in texts):
            found.unlabelled.update(texts)
            continue
        site = classify(record, contigs.get(record.contig), reference, window=window)
        for text, (status, variant) in zip(texts, site.alleles, strict=True):
            if text not in labels:
                found.unlabelled[text] += 1
            elif variant is None:
                found.skipped[status] += 1
            else:
                found.items.append(LabelledVariant(variant, labels[text], gene, consequence, record.line, extra))
    if record is None:
        raise LabelError("there are no records in it", "check how it was made", file=source)
    return found
