"""Sequence formats other than FASTA, read through Biopython one record at a time."""

from __future__ import annotations

import io
import logging
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
        _collect(file, "twobit", collector)


def _collect(handle: IO[Any], form: str, collector: Collector) -> None:
    for record in _records(handle, form, collector.path):
        collector.begin(record.id or "")
        try:
            residues = bytes(record.seq)
        except Exception as error:
            raise SequenceFileError(
                f"record {record.id} has no sequence ({error})", "fetch it with its sequence", file=collector.path
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
            if str(warning.message).startswith("Expected sequence length"):
                raise SequenceFileError(str(warning.message), "fetch the file again", file=path)
            logger.warning("%s: %s", path, warning.message)
