"""A reference genome: residues or ids of any interval."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genomamba.data import codes as residue_codes
from genomamba.data.codes import Codes
from genomamba.data.compressed import PathLike
from genomamba.data.faidx import FaidxStore
from genomamba.data.index import IndexHeader, open_index
from genomamba.data.sources import Progress
from genomamba.errors import RegionError
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids, Residues
from genomamba.genome.interval import Interval

_NAMES_SHOWN = 5


class Store(Protocol):
    """Where the codes of a genome come from."""

    path: Path
    header: IndexHeader

    def codes(self, contig: str, start: int, end: int) -> Codes: ...


@dataclass(frozen=True, slots=True)
class ReferenceSummary:
    """What a genome holds, for people.

    Args:
        path: the sequence file.
        index: the index in use; None where there is none.
        contigs: number of records.
        bases: residues in all.
        n: how many of them are N.
        soft_masked: how many are lower case.
        ambiguous: how many are an IUPAC code other than A, C, G, T, N.
        empty: names of records without sequence.
        letters: how often each letter occurs.
        normalised: what was read otherwise than written, and how often.
        fingerprint: size and content hash of the file.
    """

    path: Path
    index: Path | None
    contigs: int
    bases: int
    n: int
    soft_masked: int
    ambiguous: int
    empty: tuple[str, ...]
    letters: dict[str, int]
    normalised: dict[str, int]
    fingerprint: str


class Reference:
    """A genome opened for reading; get one from ``Reference.open``.

    It may be used after fork and be pickled. All coordinates are 0-based half-open.

    Attributes:
        path: the sequence file.
        contigs: length of each contig, in file order.
        fingerprint: size and content hash of the file.
    """

    def __init__(self, path: Path, store: Store, *, indexed: bool) -> None:
        self.path, self._store, self._indexed = path, store, indexed
        self.contigs = {contig.name: contig.length for contig in store.header.contigs}
        self.fingerprint = store.header.fingerprint

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        cache: bool = True,
        cache_dir: PathLike | None = None,
        rna: bool = False,
        progress: Progress | None = None,
    ) -> Reference:
        """Opens FASTA (plain or bgzip), GenBank, EMBL or 2bit.

        Args:
            path: the sequence file.
            cache: use the index, and make it where there is none that fits; otherwise read the FASTA each time.
            cache_dir: where the index is, instead of beside the file.
            rna: read U as T instead of refusing it.
            progress: called with bytes read and bytes in all while the file is read through.

        Raises:
            SequenceFileError: the file is unreadable or malformed.
            OutputError: no place for the index can be written.
        """
        store: Store
        if cache:
            store = open_index(path, rna=rna, cache_dir=cache_dir, progress=progress)
        else:
            store = FaidxStore(path, rna=rna, progress=progress)
        return cls(Path(os.path.abspath(path)), store, indexed=cache)

    def __repr__(self) -> str:
        return f"Reference({str(self.path)!r}, {len(self.contigs)} contigs, {sum(self.contigs.values())} bases)"

    def fetch(self, interval: Interval) -> Residues:
        """ASCII letters as the file has them, (interval.length,); of the other strand where the strand is ``-``.

        Raises:
            RegionError: the contig is unknown or empty, or the interval leaves it.
        """
        residues = residue_codes.to_residues(self._codes(interval))
        return alphabet.reverse_complement_residues(residues) if interval.strand == "-" else residues

    def ids(self, interval: Interval) -> Ids:
        """The model's ids, (interval.length,), of the interval's strand: ``encode(fetch(interval))``, but faster.

        Raises:
            RegionError: as ``fetch``.
        """
        codes = self._codes(interval)
        return residue_codes.to_reverse_complement_ids(codes) if interval.strand == "-" else residue_codes.to_ids(codes)

    def softmask(self, interval: Interval) -> NDArray[np.bool_]:
        """True where the file has a lower-case letter, (interval.length,), along the interval's strand.

        Raises:
            RegionError: as ``fetch``.
        """
        mask = residue_codes.to_softmask(self._codes(interval))
        return mask[::-1] if interval.strand == "-" else mask

    def sequence(self, contig: str, start: int, end: int) -> str:
        """Upper-case letters at ``[start, end)``, as ``genome.variant.normalise`` asks for them.

        Raises:
            RegionError: as ``fetch``.
        """
        return self.fetch(Interval(contig, start, end)).tobytes().decode("ascii").upper()

    def summary(self) -> ReferenceSummary:
        """What the genome holds."""
        header = self._store.header
        return ReferenceSummary(
            path=self.path,
            index=self._store.path if self._indexed else None,
            contigs=len(header.contigs),
            bases=sum(contig.length for contig in header.contigs),
            n=sum(contig.n for contig in header.contigs),
            soft_masked=sum(contig.soft_masked for contig in header.contigs),
            ambiguous=sum(count for letter, count in header.letters.items() if letter not in "ACGTNacgtn"),
            empty=tuple(contig.name for contig in header.contigs if not contig.length),
            letters=header.letters,
            normalised=header.normalised,
            fingerprint=self.fingerprint,
        )

    def _codes(self, interval: Interval) -> Codes:
        length = self.contigs.get(interval.contig)
        if length is None:
            known = ", ".join(list(self.contigs)[:_NAMES_SHOWN]) + (", …" if len(self.contigs) > _NAMES_SHOWN else "")
            raise RegionError(
                f"{self.path} has no such contig",
                f"it has {known}; --contig-aliases auto matches names such as chr1 and 1",
                field="contig",
                value=interval.contig,
            )
        if length == 0:
            raise RegionError(
                f"the contig is an empty record of {self.path}", "leave it out", field="contig", value=interval.contig
            )
        if interval.start < 0 or interval.end > length:
            raise RegionError(
                f"the interval leaves its contig, which has {length} bases",
                "check that it is of the same assembly",
                field="region",
                value=interval,
            )
        return self._store.codes(interval.contig, interval.start, interval.end)
