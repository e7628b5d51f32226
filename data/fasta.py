"""FASTA as a stream: read once, in blocks, every line accounted for.

Lower case, IUPAC codes, CRLF, a byte-order mark, blank lines after a record and a missing last line end are
read as meant. All else that deviates from the format is an error with its line: readers that trust an index
return wrong sequence for such files without a word.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from genomamba.data.collector import Collector
from genomamba.errors import SequenceFileError

_GT, _CR, _LF = b">\r\n"
_LONGEST_HEADER = 1 << 20


@dataclass(slots=True)
class FaiEntry:
    """Where a record lies in the (decompressed) file, as a .fai line says it.

    Args:
        name: name of the record.
        length: its residues.
        offset: of its first residue, in bytes.
        line_residues: residues of each line but the last.
        line_bytes: bytes of each line but the last, its line end included.
        uniform: whether all its lines end alike, so that positions can be computed.
    """

    name: str
    offset: int
    length: int = 0
    line_residues: int = 0
    line_bytes: int = 0
    uniform: bool = True


def scan_fasta(chunks: Iterable[bytes], collector: Collector) -> list[FaiEntry]:
    """Reads FASTA from ``chunks`` into ``collector``; ``collector.finish`` is the caller's.

    Raises:
        SequenceFileError: what the module's docstring says, with the line.
    """
    scanner = _Scanner(collector)
    rest = iter(chunks)
    head = b""
    while len(head) < len(codecs.BOM_UTF8) and (chunk := next(rest, None)) is not None:
        head += chunk
    scanner.feed_first(head)
    for chunk in rest:
        scanner.feed(chunk)
    scanner.close()
    return scanner.entries


@dataclass(slots=True)
class _Block:
    """A chunk cut into lines; the last line has no end where there are more starts than ends."""

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    crs: NDArray[np.bool_] | None  # whether a CR stands before each end; None where there is no CR at all
    keep: int  # end of the part that is read now


class _Scanner:
    def __init__(self, collector: Collector) -> None:
        self.entries: list[FaiEntry] = []
        self._collector = collector
        self._carry = b""  # an unfinished header, or a CR whose LF may follow
        self._offset = 0  # of the carry in the file
        self._line = 1  # number of the line that the carry begins or continues
        self._part: int | None = None  # residues of a sequence line that was begun in an earlier chunk
        self._short: int | None = None  # line shorter than the others: the record must end with it
        self._blank: int | None = None  # first blank line of a record: no sequence may follow

    def feed_first(self, chunk: bytes) -> None:
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._fail("the text is UTF-16", "convert it to ASCII or UTF-8", 1)
        if chunk.startswith(codecs.BOM_UTF8):
            self._collector.normalised["byte-order mark"] += 1
            self._offset = len(codecs.BOM_UTF8)
            chunk = chunk[self._offset :]
        if chunk.startswith(b"@"):
            self._fail("this is FASTQ", "give a reference genome in FASTA", 1)
        self.feed(chunk)

    def feed(self, chunk: bytes) -> None:
        block = self._cut(self._carry + chunk)
        headers = np.flatnonzero(np.frombuffer(block.data, dtype=np.uint8)[block.starts] == _GT)
        if self._part is not None and headers.size and headers[0] == 0:
            headers = headers[1:]  # this '>' continues a sequence line, which is for the collector to refuse
        done = 0
        for header in headers.tolist():
            self._sequence(block, done, header)
            self._header(block.data, int(block.starts[header]), int(block.ends[header]), self._line + header)
            done = header + 1
        self._sequence(block, done, block.starts.size)
        self._line += block.ends.size
        self._carry = block.data[block.keep :]
        self._offset += block.keep

    def close(self) -> None:
        """The end of the file: a last line without its line end is as good as any."""
        if self._carry or self._part is not None:
            uniform = [entry.uniform for entry in self.entries[-1:]]
            self.feed(b"\n")
            for entry, value in zip(self.entries[-1:], uniform, strict=False):
                entry.uniform = value

    def _cut(self, data: bytes) -> _Block:
        values = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(values == _LF)
        starts = np.concatenate(([0], ends + 1))
        tail = int(starts[-1])
        keep = len(data) - data.endswith(b"\r")
        if (tail > 0 or self._part is None) and data.startswith(b">", tail):
            keep = tail  # an unfinished header waits for its end
            if b"\r" in data[tail:-1]:
                self._fail("line ends are CR only, as on old Macintoshes", "convert them to LF", self._line + ends.size)
            if len(data) - tail > _LONGEST_HEADER:
                self._fail("the header line does not end", "check that the file is FASTA", self._line + ends.size)
        if keep <= tail:
            starts = starts[:-1]
        crs = None
        if _CR in data:
            crs = (values[ends - 1] == _CR) & (ends > starts[: ends.size])
        return _Block(data, starts, ends, crs, keep)

    def _header(self, data: bytes, start: int, end: int, line: int) -> None:
        text = data[start + 1 : end]
        if text.endswith(b"\r"):
            self._collector.normalised["CRLF line ends"] += 1
            text = text[:-1]
        if b"\r" in text:
            self._fail("a CR stands within the header", "end lines with LF, or all of them with CRLF", line)
        word = text.split(maxsplit=1)[0] if text and not text[:1].isspace() else b""
        try:
            name = word.decode()
        except UnicodeDecodeError:
            self._fail("the name is not UTF-8 text", "rename the record", line)
        if not name.isprintable():
            self._fail("the name holds control characters", "rename the record", line)
        self._collector.begin(name, line)
        self.entries.append(FaiEntry(name, self._offset + end + 1))
        self._short = self._blank = None

    def _sequence(self, block: _Block, first: int, stop: int) -> None:
        """Lines ``first`` to ``stop``; the last one is open where it has no end."""
        if first >= stop:
            return
        whole = min(stop, block.ends.size)
        start = int(block.starts[first])
        end = int(block.ends[stop - 1]) + 1 if whole == stop else block.keep
        section = block.data[start:end]
        line = self._line + first
        lengths = block.ends[first:whole] - block.starts[first:whole]
        crs = block.crs[first:whole] if block.crs is not None else np.zeros(lengths.size, dtype=bool)
        if block.crs is not None:
            if section.count(b"\r") != crs.sum():
                self._fail_cr(section, line)
            lengths = lengths - crs
            self._collector.normalised["CRLF line ends"] += int(crs.sum())
        if not self.entries:
            self._before_first_header(section, line)
            return
        if len(section) > lengths.size:
            edges = block.ends[first:whole] - start
            self._collector.add(section, lambda at: line + int(np.searchsorted(edges, at)))
        begun, self._part = self._part or 0, None
        entry = self.entries[-1]
        entry.length += int(lengths.sum())
        if lengths.size:
            lengths[0] += begun
            begun = 0
            if entry.line_residues == 0:
                entry.line_residues = int(lengths[0])
                entry.line_bytes = entry.line_residues + 1 + int(crs[0])
            entry.uniform &= bool((crs == entry.line_bytes - entry.line_residues - 1).all())
            self._check_lengths(lengths, line, entry.line_residues)
        if whole < stop:
            opened = end - int(block.starts[whole])
            entry.length += opened
            self._part = begun + opened

    def _check_lengths(self, lengths: NDArray[np.int64], line: int, width: int) -> None:
        """All lines of a record are equally long but for the last, and blank ones may only follow it."""
        filled = np.flatnonzero(lengths)
        last = int(filled[-1]) if filled.size else -1
        if filled.size:
            odd = np.flatnonzero(lengths[: last + 1] != width)
            if self._short is not None:
                self._fail_ragged(self._short)
            if self._blank is not None or lengths[0] == 0:
                self._fail_blank(self._blank or line)
            if odd.size and lengths[odd[0]] == 0:
                self._fail_blank(line + int(odd[0]))
            if odd.size and (odd[0] < last or lengths[last] > width):
                self._fail_ragged(line + int(odd[0]))
            if odd.size:
                self._short = line + last
        if last + 1 < lengths.size:
            self._collector.normalised["blank lines after a record"] += lengths.size - last - 1
            self._blank = self._blank or line + last + 1

    def _before_first_header(self, text: bytes, line: int) -> None:
        content = text.lstrip(b"\r\n")
        if content:
            line += text[: len(text) - len(content)].count(b"\n")
            self._fail("sequence before the first header; a FASTA record begins with '>'", "give a FASTA file", line)
        self._collector.normalised["blank lines before the first record"] += text.count(b"\n")

    def _fail_cr(self, section: bytes, line: int) -> NoReturn:
        lines = section.split(b"\n")
        stray = next(i for i, text in enumerate(lines) if b"\r" in (text[:-1] if i + 1 < len(lines) else text))
        self._fail("a CR stands within the line", "end lines with LF, or all of them with CRLF", line + stray)

    def _fail_blank(self, line: int) -> NoReturn:
        self._fail("a blank line within a record", "remove it, and make sure that no sequence is missing", line)

    def _fail_ragged(self, line: int) -> NoReturn:
        self._fail(
            "the line's length differs from that of the others of its record",
            "make sure that nothing is missing, then re-wrap the file (for example with seqkit seq -w 60)",
            line,
        )

    def _fail(self, problem: str, remedy: str, line: int) -> NoReturn:
        raise SequenceFileError(problem, remedy, file=self._collector.path, line=line)
