"""A quick first pass over variants, which finds out before any model runs whether they fit the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from genomamba.data.contigs import Aliases, match_contigs
from genomamba.data.reference import Reference
from genomamba.data.variants import Status, check_ref, classify
from genomamba.data.vcf import VcfRecord
from genomamba.errors import VariantFileError

#: the share of REFs that may disagree on a contig matched by an alias whose length cannot be compared
ALIAS_TOLERANCE = 0.01
#: of the records that disagree, the share that must agree one base further on for that to be the explanation
_SHIFT_SHARE = 0.9
_NAMES_SHOWN = 5


class VariantSource(Protocol):
    """A VcfReader or a VariantTable.

    Attributes:
        name: what errors call it.
        contigs: contigs that its header declares with their lengths; None where there is no header to declare any.
    """

    @property
    def name(self) -> str: ...
    @property
    def contigs(self) -> Mapping[str, int | None] | None: ...

    def __iter__(self) -> Iterator[VcfRecord]: ...


@dataclass
class Prescan:
    """What the first pass found.

    Args:
        contigs: names in the file to the reference's; those that the reference lacks are left out.
        lengths: every contig of the records, in order, with its length (None where it is not known).
        records: number of records.
        alleles: entries of ALT in all, by status.
        refs: records by how REF stands to the reference, see ``Site.ref``.
        lower_case: records with lower-case letters in an allele, which are read as upper case.
        warnings: sentences for the user.
    """

    contigs: dict[str, str]
    lengths: dict[str, int | None]
    records: int = 0
    alleles: Counter[Status] = field(default_factory=Counter)
    refs: Counter[Status] = field(default_factory=Counter)
    lower_case: int = 0
    warnings: list[str] = field(default_factory=list)


def prescan(
    source: VariantSource,
    reference: Reference,
    *,
    aliases: Aliases | None = None,
    max_mismatch: float = 0.05,
    window: int | None = None,
) -> Prescan:
    """Reads all records, matches their contigs and compares their REFs.

    A contig matched by an alias must have the length that the file's header states; where it states none, at least
    99 % of its REFs must agree.

    Args:
        source: the variants.
        reference: the genome.
        aliases: see ``match_contigs``.
        max_mismatch: the share of records whose REF may disagree, of those whose REF can be compared at all.
        window: see ``classify``.

    Raises:
        RegionError: the file and the reference have no contig in common.
        VariantFileError: more REFs disagree than may, or a record cannot be read.
    """
    declared = source.contigs or {}
    wanted = {record.contig: declared.get(record.contig) for record in source}
    contigs = match_contigs(wanted, reference.contigs, aliases=aliases, file=source.name, reference=reference.path)
    lengths = {name: reference.contigs[contigs[name]] if name in contigs else wanted[name] for name in wanted}
    found = Prescan(contigs, lengths)
    agreement = {name: _Agreement() for name in contigs}
    for record in source:
        contig = contigs.get(record.contig)
        site = classify(record, contig, reference, window=window)
        found.records += 1
        found.refs[site.ref] += 1
        found.alleles.update(allele.status for allele in site.alleles)
        found.lower_case += any(allele.isalpha() and not allele.isupper() for allele in (record.ref, *record.alts))
        if contig is not None:
            agreement[record.contig].add(record, site.ref, contig, reference)
    _check_assembly(list(agreement.values()), max_mismatch, source, reference)
    if aliases == "auto":
        unproven = [name for name, target in contigs.items() if name != target and wanted[name] is None]
        _check_aliases({name: agreement[name] for name in unproven}, contigs, source, reference)
    found.warnings = list(_warnings(source, contigs, wanted, reference))
    return found


class _Agreement:
    """How the REFs of one contig stand to the reference."""

    def __init__(self) -> None:
        self.checked = self.wrong = 0
        self.first: VcfRecord | None = None  # that is wrong
        self.shifted = Counter[int]()  # the wrong ones that would be right so many bases further on

    def add(self, record: VcfRecord, ref: Status, contig: str, reference: Reference) -> None:
        self.checked += ref in (Status.OK, Status.SKIP_REF_MISMATCH)
        if ref is not Status.SKIP_REF_MISMATCH:
            return
        self.wrong += 1
        self.first = self.first or record
        for shift in (-1, 1):
            self.shifted[shift] += check_ref(record.ref, record.pos - 1 + shift, contig, reference) is Status.OK


def _check_assembly(contigs: list[_Agreement], tolerated: float, source: VariantSource, reference: Reference) -> None:
    checked, wrong = sum(each.checked for each in contigs), sum(each.wrong for each in contigs)
    first = next((each.first for each in contigs if each.first), None)
    if first is None or wrong <= tolerated * checked:
        return
    shift, agree = sum((each.shifted for each in contigs), Counter[int]()).most_common(1)[0] if wrong > 1 else (0, 0)
    remedy = "give the reference that the variants were called on"
    if agree >= _SHIFT_SHARE * wrong:
        remedy = f"{agree} of them agree at POS {shift:+d}: count POS from 1, as VCF does"
    raise VariantFileError(
        f"wrong assembly? REF disagrees with {reference.path} in {wrong} of {checked} records, here first",
        remedy,
        file=source.name,
        line=first.line,
        field="REF",
        value=first.ref,
    )


def _check_aliases(
    unproven: Mapping[str, _Agreement], contigs: Mapping[str, str], source: VariantSource, reference: Reference
) -> None:
    """One wrong REF of few proves nothing; a contig that is another one (chrM of hg19 for MT) has many."""
    wrong = sum(each.wrong for each in unproven.values())
    checked = sum(each.checked for each in unproven.values())
    for name, each in unproven.items():
        if each.first and (wrong > ALIAS_TOLERANCE * checked or 1 < each.wrong > ALIAS_TOLERANCE * each.checked):
            raise VariantFileError(
                f"it cannot be {contigs[name]} of {reference.path}: {each.wrong} of its {each.checked} REFs disagree",
                "state contig lengths in the header, or give the reference that the variants were called on",
                file=source.name,
                line=each.first.line,
                field="#CHROM",
                value=name,
            )


def _warnings(
    source: VariantSource, contigs: Mapping[str, str], wanted: Mapping[str, int | None], reference: Reference
) -> Iterator[str]:
    if source.contigs is not None and (undeclared := [name for name in wanted if name not in source.contigs]):
        yield f"{source.name}: the header declares no contig {_listed(undeclared)}; the output's header does"
    if absent := [name for name in wanted if name not in contigs]:
        yield f"{source.name}: {reference.path} has no contig {_listed(absent)}; records there are skipped"
    for name, target in contigs.items():
        if wanted[name] not in (None, reference.contigs[target]):
            yield (
                f"{source.name}: the header says that {name} has {wanted[name]} bases; "
                f"in {reference.path} it has {reference.contigs[target]}"
            )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (
        f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    )
