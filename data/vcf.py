"""Reading variant files without losing a byte of them.

A record keeps its line as it stands; only the columns that scoring needs are looked at. Plain text, gzip and bgzip
are told apart by their first bytes, never by the file's name; BCF is decoded to text first. Whatever can be read
only once (stdin, a pipe) is kept in a temporary file, so that every input can be gone through twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from genomamba.data.compressed import open_decompressed
from genomamba.errors import VariantFileError

FIXED_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
STDIN = "-"

_BCF_MAGIC = b"BCF\x02"
_LONGEST_POS = 18  # digits; no genome comes near, and Python refuses to convert thousands of them
_CUT = "get the whole file again, or repeat the step that wrote it"
_CONTIG_LINE = re.compile(r"##contig=<(?:.*,)?ID=([^,>]+)")
_LENGTH = re.compile(r"[<,]length=(\d+)")


class VcfRecord(NamedTuple):
    """One data line.

    Attributes:
        line: 1-based line within the file (for BCF, within its text form).
        contig: CHROM as written.
        pos: POS, 1-based; 0 is the telomere before the first base.
        id: ID as written.
        ref: REF as written.
        alts: ALT at its commas; ``(".",)`` where there is none.
        info: INFO as written.
        text: the whole line without its end, every column as it was read.
    """

    line: int
    contig: str
    pos: int
    id: str
    ref: str
    alts: tuple[str, ...]
    info: str
    text: str


def info_value(info: str, key: str) -> str | None:
    """The text of one INFO key: ``""`` for a flag, None where the key is absent."""
    fenced = f";{info};"
    start = fenced.find(f";{key}=")
    if start >= 0:
        start += len(key) + 2
        return fenced[start : fenced.index(";", start)]
    return "" if f";{key};" in fenced else None


def parse_pos(text: str) -> int | None:
    """A position as VCF writes it: plain digits, 0 allowed; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_POS else None


def contig_lengths(header: list[str]) -> dict[str, int | None]:
    """The ``##contig`` lines of a header: length in bases, None where the line gives none."""
    lengths: dict[str, int | None] = {}
    for line in header:
        if match := _CONTIG_LINE.match(line):
            length = _LENGTH.search(line)
            lengths[match[1]] = int(length[1]) if length else None
    return lengths


@contextmanager
def quiet_htslib() -> Iterator[None]:
    """Keeps htslib's own words off stderr: what goes wrong is raised, and said once."""
    import pysam  # only BCF needs it

    verbosity = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(verbosity)


class VcfReader:
    """A VCF or BCF file, to be used as a context manager and iterated over as often as needed.

    Args:
        path: the file, or ``-`` for stdin.

    Attributes:
        name: what errors call the file.
        header: every header line without its end, ``#CHROM`` last.
        contigs: what the header's ``##contig`` lines say, contig to length in bases or None.

    Raises:
        VariantFileError: on entering, where the file is missing, cut or has no header; while iterating, at the first
            line that is no record.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = "<stdin>" if str(path) == STDIN else str(path)
        self.header: list[str] = []
        self.contigs: dict[str, int | None] = {}
        self._path = Path(path)
        self._from_stdin = str(path) == STDIN
        self._is_bcf = False
        self._stack = ExitStack()

    def __enter__(self) -> VcfReader:
        try:
            self._make_rereadable()
            self._is_bcf = self._sniff()
            self.header = self._read_header()
        except BaseException:
            self._stack.close()
            raise
        self.contigs = contig_lengths(self.header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[VcfRecord]:
        columns = self.header[-1].count("\t") + 1
        for line, text in enumerate(self._lines(), start=1):
            if line > len(self.header):
                yield self._record(line, text, columns)

    def fingerprint(self) -> str:
        """Size and hash of the file as it is stored; of stdin, of what came through it."""
        digest, size = hashlib.blake2b(digest_size=16), 0
        try:
            with self._path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise self._unreadable(error) from error
        return f"{size}-{digest.hexdigest()}"

    def _make_rereadable(self) -> None:
        try:
            if not self._from_stdin and self._path.is_file():
                return
            with ExitStack() as opened:
                source = sys.stdin.buffer if self._from_stdin else opened.enter_context(self._path.open("rb"))
                spool = self._stack.enter_context(tempfile.NamedTemporaryFile(prefix="genomamba-", suffix=".input"))
                shutil.copyfileobj(source, spool, 1 << 20)
                spool.flush()
        except OSError as error:
            raise self._unreadable(error) from error
        self._path = Path(spool.name)

    def _sniff(self) -> bool:
        """Whether the file is BCF, which is then checked from end to end: htslib only warns of a cut one."""
        with self._open() as stream:
            is_bcf = stream.read(4) == _BCF_MAGIC
            while is_bcf and stream.read(1 << 20):
                pass
        return is_bcf

    @contextmanager
    def _open(self) -> Iterator[io.BufferedReader]:
        """The decompressed content; errors go by the name that the user knows."""
        try:
            with open_decompressed(self._path, VariantFileError) as stream:
                yield stream
        except VariantFileError as error:
            if error.file == self.name:
                raise
            raise VariantFileError(error.problem, error.remedy, file=self.name) from error

    def _lines(self) -> Iterator[str]:
        return self._bcf_lines() if self._is_bcf else self._text_lines()

    def _text_lines(self) -> Iterator[str]:
        # surrogateescape: bytes that are not UTF-8 come out as they went in
        with (
            self._open() as raw,
            io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="\n") as stream,
        ):
            for line, text in enumerate(stream, start=1):
                text = text.removesuffix("\n").removesuffix("\r")
                yield text.removeprefix("\ufeff") if line == 1 else text

    def _bcf_lines(self) -> Iterator[str]:
        import pysam

        line = 0
        try:
            with quiet_htslib(), pysam.VariantFile(str(self._path)) as variants:
                for text in str(variants.header).rstrip("\n").split("\n"):
                    line += 1
                    yield text
                for record in variants:
                    line += 1
                    yield str(record).rstrip("\n")
        except (OSError, ValueError, UnicodeDecodeError) as error:
            raise VariantFileError(f"the BCF is damaged ({error})", _CUT, file=self.name, line=line + 1) from error

    def _read_header(self) -> list[str]:
        header: list[str] = []
        for line, text in enumerate(self._lines(), start=1):
            if not text.startswith("#"):
                problem = "the header is missing" if line == 1 else "the header has no #CHROM line"
                raise VariantFileError(
                    problem, "a VCF begins with ##fileformat=VCFv4.2 and a #CHROM line", file=self.name, line=line
                )
            header.append(text)
            if not text.startswith("##"):
                self._check_columns(line, text)
                return header
        raise VariantFileError(
            "the file ends before its #CHROM line", _CUT, file=self.name, line=len(header) if header else None
        )

    def _check_columns(self, line: int, text: str) -> None:
        if tuple(text.split("\t")[:8]) == FIXED_COLUMNS:
            return
        if tuple(text.split()[:8]) == FIXED_COLUMNS:
            raise VariantFileError(
                "spaces stand between the columns", "put one tab between columns", file=self.name, line=line
            )
        raise VariantFileError(
            "the column names are not those of a VCF",
            f"the line must begin with {' '.join(FIXED_COLUMNS)}, tabs between them",
            file=self.name,
            line=line,
            field="#CHROM",
            value=text,
        )

    def _record(self, line: int, text: str, columns: int) -> VcfRecord:
        fields = text.split("\t", 8)
        if len(fields) < 8 or text.count("\t") + 1 != columns:
            raise self._wrong_columns(line, text, columns)
        contig, pos, identifier, ref, alt, _, _, info = fields[:8]
        if not contig:
            raise VariantFileError(
                "the contig's name is empty", "name the contig", file=self.name, line=line, field="#CHROM"
            )
        number = parse_pos(pos)
        if number is None:
            raise VariantFileError(
                "POS is not a position",
                "write it as a whole number in plain digits, 1 for the first base",
                file=self.name,
                line=line,
                field="POS",
                value=pos,
            )
        return VcfRecord(line, contig, number, identifier, ref, tuple(alt.split(",")), info, text)

    def _wrong_columns(self, line: int, text: str, columns: int) -> VariantFileError:
        found = text.count("\t") + 1
        if not text.strip():
            return VariantFileError("the line is blank", "delete it", file=self.name, line=line)
        if text.startswith("#"):
            return VariantFileError(
                "a header line stands among the records", "delete it, or move it up", file=self.name, line=line
            )
        if len(text.split()) >= columns and found < columns:
            return VariantFileError(
                "spaces stand between the columns", "put one tab between columns", file=self.name, line=line
            )
        problem = f"the line has {found} columns where the header has {columns}"
        remedy = f"if it is the last line the file was cut: {_CUT}" if found < columns else "correct the line"
        return VariantFileError(problem, remedy, file=self.name, line=line)

    def _unreadable(self, error: OSError) -> VariantFileError:
        return VariantFileError(
            f"it cannot be read ({error.strerror or error})", "check the path and its permissions", file=self.name
        )
