"""Sequence formats other than FASTA, read through Biopython one record at a time."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import IO, Any, Literal

from genomamba.data.collector import Collector
from genomamba.data.compressed import ChunkStream, PathLike
from genomamba.errors import SequenceFileError

logger = logging.getLogger(__name__)

TWOBIT_MAGICS = (b"\x1a\x41\x27\x43", b"\x43\x27\x41\x1a")


def read_flatfile(stream: ChunkStream, form: Literal["genbank", "embl"], collector: Collector) -> None:
    """Reads GenBank or EMBL records, named by accession and version, into ``collector``.

    Raises:
        SequenceFileError: malformed, without its sequence, or of another length than it states.
    """
    with io.TextIOWrapper(io.BufferedReader(stream), encoding="latin-1") as text:
        _collect(text, form, collector)


def read_twobit(path: PathLike, collector: Collector) -> None:
    """Reads a 2bit file, soft mask and N included, into ``collector``.

    Raises:
        SequenceFileError: malformed or cut short.
    """
    with open(path, "rb") as file:
        _check_twobit_offsets(file, path)
        _collect(file, "twobit", collector)


def _check_twobit_offsets(file: IO[bytes], path: PathLike) -> None:
    """Biopython takes a record that lies beyond the end of a cut file for an empty one."""
    head = file.read(16)
    order: Literal["little", "big"] = "little" if head[:4] == TWOBIT_MAGICS[1] else "big"
    size = os.fstat(file.fileno()).st_size
    for _ in range(int.from_bytes(head[8:12], order)):
        name_length = int.from_bytes(file.read(1), order)
        entry = file.read(name_length + 4)
        if len(entry) < name_length + 4 or int.from_bytes(entry[-4:], order) + 16 > size:
            raise SequenceFileError("the 2bit file is cut short", "fetch it again", file=path)
    file.seek(0)


def _collect(handle: IO[Any], form: str, collector: Collector) -> None:
    for record in _records(handle, form, collector.path):
        collector.begin(record.id or "")
        try:
            residues = bytes(record.seq)
        except Exception as error:
            raise SequenceFileError(
                f"the sequence of {record.id} is not there ({error})",
                "fetch the file again, with it",
                file=collector.path,
            ) from error
        collector.add(residues)


def _records(handle: IO[Any], form: str, path: PathLike) -> Iterator[Any]:
    """SeqIO.parse, with what it merely warns of logged, or raised where sequence is missing."""
    from Bio import SeqIO

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield from SeqIO.parse(handle, form)
        except SequenceFileError:
            raise
        except Exception as error:  # Biopython raises whatever its parsers run into
            raise SequenceFileError(f"no readable {form} file ({error})", "fetch it again", file=path) from error
        for warning in caught:
            text = str(warning.message)
            if "sequence" in text or "Premature" in text:  # residues may be missing; other warnings are of annotation
                raise SequenceFileError(text.rstrip("."), "fetch the file again", file=path)
            logger.warning("%s: %s", path, text)
