"""FASTA read without an index of ours: through pyfaidx, whose own files are private to the process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.data import codes as residue_codes
from genomamba.data.codes import Codes
from genomamba.data.collector import Collector
from genomamba.data.compressed import PathLike, sniff
from genomamba.data.fasta import FaiEntry
from genomamba.data.index import IndexHeader
from genomamba.data.sources import Progress, SourceFile, read_sequences
from genomamba.errors import SequenceFileError


class FaidxStore:
    """Codes of any stretch, read from the FASTA each time.

    The file is read through once and checked as for an index. What it takes to find a base in it is written to a
    temporary folder, never beside the file, and a .fai that stands there is never used.

    Args:
        path: FASTA, plain or bgzip.
        rna: read U as T.
        progress: called with bytes read and bytes in all.

    Raises:
        SequenceFileError: malformed, not FASTA, or with line ends that differ within a record.
    """

    def __init__(self, path: PathLike, *, rna: bool = False, progress: Progress | None = None) -> None:
        self.path = Path(os.path.abspath(path))
        self._rna = rna
        collector = Collector(path, lambda codes: None, rna=rna)
        with SourceFile(path, progress) as file:
            self._bgzip = sniff(file.peek(64), path) == "bgzip"
            entries = read_sequences(file, collector)
            fingerprint = file.finish()
            self._status = (file.stat.st_size, file.stat.st_mtime_ns, file.stat.st_ctime_ns)
        if entries is None:
            raise SequenceFileError("only FASTA can be read without an index", "let an index be made", file=path)
        for entry in entries:
            if not entry.uniform:
                raise SequenceFileError(
                    f"the line ends of {entry.name} differ (LF and CRLF)", "let an index be made", file=path
                )
        self._entries = entries
        self.header = IndexHeader(
            tuple(collector.contigs),
            residue_codes.letter_counts(collector.letters),
            dict(collector.normalised),
            fingerprint,
            "",
        )
        self._faidx: Any = None
        self._opened_by = 0

    def codes(self, contig: str, start: int, end: int) -> Codes:
        """Codes at ``[start, end)``; the caller has checked that it lies on the contig."""
        if start == end:
            return np.zeros(0, dtype=np.uint8)
        now = os.stat(self.path)
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != self._status:
            raise SequenceFileError("the file was changed while in use", "start again", file=self.path)
        if self._opened_by != os.getpid():  # a handle that was opened before a fork shares its position
            self._faidx, self._opened_by = self._open(now.st_mtime_ns), os.getpid()
        text = self._faidx.fetch(contig, start + 1, end).seq
        return residue_codes.from_residues(text.encode(), rna=self._rna)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_faidx": None, "_opened_by": 0}

    def _open(self, modified_ns: int) -> Any:
        from pyfaidx import Faidx

        with tempfile.TemporaryDirectory(prefix="genomamba-") as folder:
            # pyfaidx goes by the name, so the name must say what the content is
            link = Path(folder) / ("reference.fa.gz" if self._bgzip else "reference.fa")
            link.symlink_to(self.path)
            fai = Path(folder) / (link.name + ".fai")
            fai.write_text("".join(map(_fai_line, self._entries)))
            later = max(modified_ns, fai.stat().st_mtime_ns) + 1
            os.utime(fai, ns=(later, later))
            return Faidx(str(link), as_raw=False, rebuild=False, build_index=False)


def _fai_line(entry: FaiEntry) -> str:
    fields = (entry.name, entry.length, entry.offset, entry.line_residues, entry.line_bytes)
    return "\t".join(map(str, fields)) + "\n"
