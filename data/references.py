"""Several genomes as one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genomamba.data.reference import Reference
from genomamba.errors import SequenceFileError
from genomamba.genome.alphabet import Ids, Residues
from genomamba.genome.interval import Interval


class Genome(Protocol):
    """What windows are read from: one reference or several."""

    path: Path
    contigs: dict[str, int]
    fingerprint: str

    def fetch(self, interval: Interval) -> Residues: ...
    def ids(self, interval: Interval) -> Ids: ...
    def softmask(self, interval: Interval) -> NDArray[np.bool_]: ...


class References:
    """References side by side.

    Contigs keep their names where no two files share one; otherwise each is called ``file/contig``, the file
    without its folder and its endings.

    Attributes:
        path: of the first.
        contigs: lengths of all contigs, file after file.
        groups: names of each file's contigs, in the order given.
        fingerprint: of all of them.

    Raises:
        SequenceFileError: two files have one name and share a contig's.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        shared = any(count > 1 for count in Counter(name for r in references for name in r.contigs).values())
        self.path = references[0].path
        self.contigs: dict[str, int] = {}
        self.groups: list[list[str]] = []
        self._where: dict[str, tuple[Reference, str]] = {}
        for reference in references:
            stem = reference.path.name.partition(".")[0]
            names = {(f"{stem}/{name}" if shared else name): name for name in reference.contigs}
            if twice := names.keys() & self.contigs.keys():
                raise SequenceFileError(
                    f"another reference is called {stem} too and also has contig {min(twice).partition('/')[2]}",
                    "give each file once, or rename one",
                    file=reference.path,
                )
            self.groups.append(list(names))
            self.contigs |= {ours: reference.contigs[theirs] for ours, theirs in names.items()}
            self._where |= {ours: (reference, theirs) for ours, theirs in names.items()}
        self.fingerprint = "+".join(reference.fingerprint for reference in references)
        if len(references) > 1:
            self.fingerprint = hashlib.sha256(self.fingerprint.encode()).hexdigest()[:32]

    def fetch(self, interval: Interval) -> Residues:
        """As ``Reference.fetch``."""
        reference, there = self._there(interval)
        return reference.fetch(there)

    def ids(self, interval: Interval) -> Ids:
        """As ``Reference.ids``."""
        reference, there = self._there(interval)
        return reference.ids(there)

    def softmask(self, interval: Interval) -> NDArray[np.bool_]:
        """As ``Reference.softmask``."""
        reference, there = self._there(interval)
        return reference.softmask(there)

    def _there(self, interval: Interval) -> tuple[Reference, Interval]:
        reference, name = self._where[interval.contig]
        return reference, Interval(name, interval.start, interval.end, interval.strand)
