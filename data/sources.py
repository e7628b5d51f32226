"""A sequence file read once: hashed as it passes, its format told from its content."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable
from types import TracebackType

from genomamba.data.collector import Collector
from genomamba.data.compressed import CHUNK_BYTES, ChunkStream, PathLike, decompressed, open_regular, sniff
from genomamba.data.fasta import FaiEntry, scan_fasta
from genomamba.data.flatfile import TWOBIT_MAGICS, read_flatfile, read_twobit
from genomamba.errors import SequenceFileError

#: called with the bytes read so far and the bytes in all
Progress = Callable[[int, int], None]


class SourceFile:
    """A file that is read from start to end and hashed on the way.

    Args:
        path: the file.
        progress: called after every read, unless the file is read in one.

    Attributes:
        stat: its status when it was opened.
        opened_ns: the clock just before that.

    Raises:
        SequenceFileError: it cannot be opened or read.
    """

    def __init__(self, path: PathLike, progress: Progress | None = None) -> None:
        self.path = path
        self.opened_ns = time.time_ns()
        self._handle = open_regular(path)
        self.stat = os.fstat(self._handle.fileno())
        self._progress = progress
        self._hash = hashlib.blake2b(digest_size=16)
        self._done = 0

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.close()

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        try:
            data = self._handle.read(size)
        except OSError as error:
            raise SequenceFileError(f"cannot be read ({error.strerror})", "check the disk", file=self.path) from error
        self._hash.update(data)
        self._done += len(data)
        if self._progress is not None and data and self.stat.st_size > CHUNK_BYTES:
            self._progress(self._done, self.stat.st_size)
        return data

    def peek(self, size: int) -> bytes:
        """The first bytes, before any is read."""
        return os.pread(self._handle.fileno(), size, 0)

    def finish(self) -> str:
        """Reads what is left and returns the fingerprint: size and content hash.

        Raises:
            SequenceFileError: the file was changed meanwhile.
        """
        while self.read():
            pass
        now = os.fstat(self._handle.fileno())
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            self.stat.st_size,
            self.stat.st_mtime_ns,
            self.stat.st_ctime_ns,
        ) or self._done != self.stat.st_size:
            raise SequenceFileError(
                "the file was changed while it was read", "wait until it is written, then try again", file=self.path
            )
        return f"{self._done}-{self._hash.hexdigest()}"


def read_sequences(file: SourceFile, collector: Collector) -> list[FaiEntry] | None:
    """Reads FASTA (plain or bgzip), GenBank, EMBL or 2bit into ``collector``, and ends it.

    Returns:
        For FASTA, where each record lies in the decompressed file.

    Raises:
        SequenceFileError: the file is damaged, malformed, or none of these.
    """
    head = file.peek(64)
    compression = sniff(head, file.path)
    if compression == "gzip":
        name = os.path.basename(file.path)
        raise SequenceFileError(
            "compressed with plain gzip, where bgzip is needed",
            f"recompress it: gunzip -c {name} | bgzip > {name.removesuffix('.gz')}.bgz",
            file=file.path,
        )
    entries = None
    if head.startswith(TWOBIT_MAGICS):
        read_twobit(file.path, collector)
    else:
        chunks = decompressed(file, compression, file.path)
        first = next((chunk for chunk in chunks if chunk), b"")
        chunks = itertools.chain([first], chunks)
        if first.startswith((b"LOCUS ", b"ID  ")):
            read_flatfile(ChunkStream(chunks), "genbank" if first.startswith(b"LOCUS") else "embl", collector)
        else:
            entries = scan_fasta(chunks, collector)
    collector.finish()
    return entries
