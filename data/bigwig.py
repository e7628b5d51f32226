"""Values along a reference's contigs, read from bigWig files (Kent et al. 2010)."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genomamba.data.compressed import PathLike, open_regular
from genomamba.data.contigs import Aliases, match_contigs
from genomamba.data.tracks import bigwig_library
from genomamba.errors import LabelError, RegionError
from genomamba.genome.interval import Interval


class BigWig:
    """One bigWig on a reference; it may be used after a fork, and be pickled.

    Args:
        path: the file.
        contigs: names and lengths of the reference's.
        aliases: how names are matched, see `match_contigs`.
        reference: the reference's file, for messages.

    Raises:
        ConfigError: what reads it is not installed.
        LabelError: it is missing, no bigWig, or cut.
        RegionError: no contig in common, one of another length than the reference's, or two that mean the same one.
    """

    def __init__(
        self, path: PathLike, contigs: Mapping[str, int], *, aliases: Aliases | None = None, reference: PathLike
    ) -> None:
        self.path = os.fspath(path)
        self._reader: Any = None
        self._opened_by = 0
        own: dict[str, int] = self._open().chroms()
        matched = match_contigs(own, contigs, aliases=aliases, file=path, reference=reference)
        self._names: dict[str, str] = {}
        for name, meant in matched.items():
            if own[name] != contigs[meant]:
                raise RegionError(
                    f"it has {own[name]:,} bases here, and {contigs[meant]:,} in {reference}",
                    "give files of one and the same assembly",
                    file=path,
                    field="contig",
                    value=name,
                )
            if meant in self._names:
                raise RegionError(
                    f"it and {self._names[meant]} are both {meant} of {reference}",
                    "leave out --contig-aliases",
                    file=path,
                    field="contig",
                    value=name,
                )
            self._names[meant] = name

    @property
    def fingerprint(self) -> str:
        """The file's SHA-256, as `sha256sum` prints it."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def values(self, interval: Interval) -> NDArray[np.float32]:
        """Of each base along the interval's strand, (L,), NaN where the file has none.

        Raises:
            LabelError: what is in the file there cannot be read.
        """
        name = self._names.get(interval.contig)
        if name is None:
            return np.full(interval.length, np.nan, dtype=np.float32)
        try:
            found = self._open().values(name, interval.start, interval.end, fillna=None)
        except BaseException as error:
            # The library panics at what it cannot decompress, which is no Exception.
            if type(error).__name__ in ("PanicException", "BBIReadError"):
                raise LabelError(
                    f"what it has of {interval} cannot be read", "get the file again", file=self.path
                ) from error
            raise
        values = found.astype(np.float32)
        return values[::-1] if interval.strand == "-" else values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_opened_by": 0}

    def _open(self) -> Any:
        if self._opened_by == os.getpid():  # a handle that was opened before a fork shares its position
            return self._reader
        library = bigwig_library("use a Python that it has a wheel for", field="tracks")
        # By an open file, since of a path the library would take the name's end for the content.
        file = open_regular(self.path, LabelError)
        weakref.finalize(self, file.close)
        try:
            reader = library.open(file)
        except library.BBIReadError as error:
            raise LabelError("it is no bigWig, or it is cut", "give a whole bigWig", file=self.path) from error
        if not reader.is_bigwig:
            raise LabelError("it is a bigBed, which has no value per base", "give a bigWig", file=self.path)
        self._reader, self._opened_by = reader, os.getpid()
        return reader
