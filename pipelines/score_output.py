"""What `score` writes: an annotated copy of the input, or a table with a row per allele."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from genomamba import __version__
from genomamba.data.table_write import TableWriter, table_format
from genomamba.data.vcf import VcfRecord
from genomamba.data.vcf_write import VcfWriter
from genomamba.scoring.distances import Distances
from genomamba.scoring.records import AlleleScore
from genomamba.scoring.variants import VariantScore


class Column(NamedTuple):
    """One number of a score."""

    key: str  # in INFO
    name: str  # in tables
    description: str
    value: Callable[[VariantScore], float | None]


_SITE = "of alt's and ref's mean hidden states over the bases that change"
_POOL = "of alt's and ref's mean hidden states over the window"
SCORES = (
    Column("GM_LLR", "llr", "log p(alt) - log p(ref) in nats, over the window or, of a masked model, at the site",
           lambda score: score.llr),
    Column("GM_PROB", "prob", "Calibrated probability of the positive class", lambda score: score.probability),
)  # fmt: skip
DISTANCES = tuple(
    Column(
        f"GM_{name.upper()}",
        name,
        f"{kind} distance {_SITE if name.startswith('site') else _POOL}",
        lambda score, name=name: getattr(score.distances, name),  # type: ignore[misc]
    )
    for name, kind in zip(Distances._fields, ("L1", "L2", "Cosine") * 2, strict=True)
)
ADDED = {
    "GENOMAMBA",
    *(column.key for column in (*SCORES, *DISTANCES)),
}  # to INFO, or put in the place of what is there
FIXED = {"chrom": str, "pos": int, "id": str, "ref": str, "alt": str, "model": str, "status": str}


class ScoreOutput(Protocol):
    """A context manager that takes records in order, and puts the file in its place at its end."""

    @property
    def note(self) -> str | None:
        """What the user should hear about the file once it is closed."""

    def write(self, record: VcfRecord, alleles: Sequence[AlleleScore]) -> None: ...


def open_output(
    path: str,
    *,
    header: list[str],
    contigs: Mapping[str, int | None],
    model: str,
    weights: str,
    window: int,
    step: int,
    distances: bool,
    force: bool,
    folder: Path | None,
) -> AbstractContextManager[ScoreOutput]:
    """The output that a path's extension asks for.

    Args:
        path: ``-`` is plain VCF on stdout.
        header: of the input.
        contigs: see `VcfWriter`.
        model: its name in the output.
        weights: their SHA-256.
        window: its window.
        step: of the windows' middles.
        distances: whether to write `DISTANCES` too.
        force: whether to replace what is there.
        folder: see `VcfWriter`.
    """
    columns = (*SCORES, *DISTANCES) if distances else SCORES
    if table_format(path) is not None:
        return ScoreTable(path, columns, model=model, force=force, folder=folder)
    lines = [
        f"##genomamba=<ID={model},Version={__version__},Window={window},Step={step},Weights={weights}>",
        '##INFO=<ID=GENOMAMBA,Number=A,Type=String,Description="ALLELE|MODEL|LLR|PROB|STATUS of each ALT">',
        *(f'##INFO=<ID={c.key},Number=A,Type=Float,Description="{c.description}">' for c in columns),
    ]
    return AnnotatedVariants(
        VcfWriter(path, header, lines, contigs=contigs, force=force, folder=folder), columns, model
    )


class AnnotatedVariants:
    """The records as they were read, with INFO keys added."""

    def __init__(self, writer: VcfWriter, columns: Sequence[Column], model: str) -> None:
        self._writer, self._columns, self._model = writer, columns, model

    @property
    def note(self) -> str | None:
        return self._writer.note

    def __enter__(self) -> AnnotatedVariants:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)

    def write(self, record: VcfRecord, alleles: Sequence[AlleleScore]) -> None:
        self._writer.write(record, annotation(record.alts, self._model, alleles, self._columns))


class ScoreTable:
    """A row per allele."""

    note = None

    def __init__(self, path: str, columns: Sequence[Column], *, model: str, force: bool, folder: Path | None) -> None:
        types: dict[str, type] = {**FIXED, **{column.name: float for column in columns}}
        self._writer = TableWriter(path, types, force=force, folder=folder)
        self._columns, self._model = columns, model

    def __enter__(self) -> ScoreTable:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)

    def write(self, record: VcfRecord, alleles: Sequence[AlleleScore]) -> None:
        for alt, allele in zip(record.alts, alleles, strict=True):
            fixed = (record.contig, record.pos, record.id, record.ref, alt, self._model, str(allele.status))
            self._writer.write((*fixed, *(_value(column, allele) for column in self._columns)))


def annotation(
    alts: Sequence[str], model: str, alleles: Sequence[AlleleScore], columns: Sequence[Column]
) -> Mapping[str, str]:
    """The INFO keys of one record, one value per ALT."""
    numbers = {c.key: [_number(_value(c, allele)) for allele in alleles] for c in columns}
    each = [
        "|".join((plain(alt), model, llr, probability, allele.status))
        for alt, llr, probability, allele in zip(alts, numbers["GM_LLR"], numbers["GM_PROB"], alleles, strict=True)
    ]
    return {"GENOMAMBA": ",".join(each), **{key: ",".join(values) for key, values in numbers.items()}}


def plain(text: str) -> str:
    """Breakends and symbolic alleles may hold what separates INFO's values; VCF 4.3 percent-encodes those."""
    for character in "%,;=| ":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _value(column: Column, allele: AlleleScore) -> float | None:
    return None if allele.score is None else column.value(allele.score)


def _number(value: float | None) -> str:
    return "." if value is None else f"{value:.5g}"
