"""The index: all residues of a genome in one file that any number of processes map into memory.

It stands beside its source as ``<source>.gmi``, or in the cache folder where the source's own is read-only:
``$GENOMAMBA_CACHE``, else ``$XDG_CACHE_HOME/genomamba``, else ``~/.cache/genomamba``.

Layout::

    0       magic line; then one JSON line that says where the rest lies
    2048    stat record: size, mtime, ctime, inode, device of the source when its content was last seen to agree
    4096    one code per residue (genomamba.data.codes), contigs end to end; long runs of N are holes
    then    header, JSON: contigs, counts, fingerprint

An index is used only for the very bytes it was made from. The stat record says cheaply that nothing has
changed since (a user can set mtime, but not ctime); where it disagrees, the source is hashed. Indexes of other
programs (.fai, .gzi) are never read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import zlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from genomamba.data import codes as residue_codes
from genomamba.data.codes import Codes
from genomamba.data.collector import U_READ_AS_T, Collector, Contig
from genomamba.data.compressed import PathLike, open_regular
from genomamba.data.sources import Progress, SourceFile, read_sequences
from genomamba.errors import OutputError, SequenceFileError
from genomamba.files import whole_file

logger = logging.getLogger(__name__)

SUFFIX = ".gmi"
_MAGIC = b"genomamba index 1\n"
_PAGE = 4096
_STAT_AT = 2048
_BUFFER = 1 << 22
#: A change this soon after a look at the clock may carry the same time stamp (cf. git's "racily clean").
_RACE_NS = 2_000_000_000
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What an index says of its source.

    Args:
        contigs: in file order.
        letters: how often each letter occurs.
        normalised: what was read otherwise than written (``U read as T`` for example), and how often.
        fingerprint: size and content hash of the source.
        seal: hash of this header; tells two indexes of one path apart.
    """

    contigs: tuple[Contig, ...]
    letters: dict[str, int]
    normalised: dict[str, int]
    fingerprint: str
    seal: str


class IndexStore:
    """Codes of any stretch, straight from the mapped file.

    Safe to use after fork, and to pickle: another process maps the file anew at its first read.

    Args:
        path: the index.
        header: what ``read_header`` gave for it.
    """

    def __init__(self, path: Path, header: IndexHeader) -> None:
        self.path, self.header = path, header
        self._map: Codes | None = None
        lengths = [contig.length for contig in header.contigs]
        starts = np.concatenate(([0], np.cumsum(lengths))).tolist()
        self._starts = dict(zip((contig.name for contig in header.contigs), starts, strict=False))

    def codes(self, contig: str, start: int, end: int) -> Codes:
        """Codes at ``[start, end)``, read-only; the caller has checked that it lies on the contig."""
        if self._map is None:
            self._map = self._open()
        offset = self._starts[contig]
        return self._map[offset + start : offset + end]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "header": self.header}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["header"])  # type: ignore[misc]

    def _open(self) -> Codes:
        total = sum(contig.length for contig in self.header.contigs)
        try:
            with open(self.path, "rb") as file:  # one handle for both, so that what is mapped is what was checked
                found = _parse_header(file)
                if found is not None and found.seal == self.header.seal:
                    return np.memmap(file, dtype=np.uint8, mode="r", offset=_PAGE, shape=(total,)).view(np.ndarray)
        except OSError as error:
            raise SequenceFileError(
                f"the index cannot be opened ({error.strerror})", "start again to make it anew", file=self.path
            ) from error
        raise SequenceFileError(
            "the index was replaced while in use", "start again, so that all processes see one genome", file=self.path
        )


def open_index(
    source: PathLike,
    *,
    rna: bool = False,
    cache_dir: PathLike | None = None,
    progress: Progress | None = None,
) -> IndexStore:
    """The index of ``source``, made or remade where there is none that fits.

    Raises:
        SequenceFileError: the source is unreadable or malformed.
        OutputError: no place for the index can be written.
    """
    places = _places(source, cache_dir)
    with SourceFile(source, progress) as file:
        record, fingerprint = _stat_record(file.stat), ""
        for place in places:
            header = read_header(place)
            if header is None or (header.normalised.get(U_READ_AS_T) and not rna):
                continue
            if _trusted(place, record):
                return IndexStore(place, header)
            fingerprint = fingerprint or file.finish()
            if header.fingerprint == fingerprint:
                _refresh(place, record, file.opened_ns)
                return IndexStore(place, header)
            logger.info("%s was made from other content than %s has now", place, source)
    return _build(source, places, rna=rna, progress=progress)


def build_index(
    source: PathLike,
    *,
    force: bool = False,
    rna: bool = False,
    cache_dir: PathLike | None = None,
    progress: Progress | None = None,
) -> Path:
    """Makes the index of ``source`` unless there is one that fits; any number of processes may do so at once.

    Args:
        source: FASTA, plain or bgzip; GenBank, EMBL or 2bit.
        force: make it anew in any case.
        rna: read U as T instead of refusing it.
        cache_dir: where to put the index, instead of beside the source.
        progress: called with bytes read and bytes in all.

    Returns:
        Path of the index.

    Raises:
        SequenceFileError: the source is unreadable or malformed.
        OutputError: no place for the index can be written.
    """
    if force:
        return _build(source, _places(source, cache_dir), rna=rna, progress=progress).path
    return open_index(source, rna=rna, cache_dir=cache_dir, progress=progress).path


def read_header(path: Path) -> IndexHeader | None:
    """The header of an index; None where there is none, or one that is cut, damaged or of another version."""
    try:
        with open(path, "rb") as file:
            return _parse_header(file)
    except OSError:
        return None


def _parse_header(file: IO[bytes]) -> IndexHeader | None:
    page = file.read(_STAT_AT)
    if not page.startswith(_MAGIC):
        return None
    try:
        layout = json.loads(page[len(_MAGIC) :].split(b"\n", 1)[0])
        size, header_at, seal = layout["bytes"], layout["header_at"], layout["seal"]
    except (ValueError, KeyError, TypeError):
        return None
    if os.fstat(file.fileno()).st_size != size:
        return None
    file.seek(header_at)
    text = file.read()
    if _digest(text) != seal:
        return None
    header = json.loads(text)
    columns = (header["names"], header["lengths"], header["n"], header["soft_masked"])
    contigs = tuple(Contig(*row) for row in zip(*columns, strict=True))
    return IndexHeader(contigs, header["letters"], header["normalised"], header["fingerprint"], seal)


def cache_folder() -> Path | None:
    """Where indexes go whose source lies in a read-only folder; None for a user without a home."""
    if chosen := os.environ.get("GENOMAMBA_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "genomamba" if os.path.isabs(home) else None


def _places(source: PathLike, cache_dir: PathLike | None) -> list[Path]:
    path = Path(os.path.abspath(source))
    in_cache = f"{path.name}.{hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()}{SUFFIX}"
    if cache_dir is not None:
        return [Path(cache_dir) / in_cache]
    beside, cache = path.with_name(path.name + SUFFIX), cache_folder()
    return [beside] if cache is None else [beside, cache / in_cache]


def _build(source: PathLike, places: list[Path], *, rna: bool, progress: Progress | None) -> IndexStore:
    open_regular(source).close()  # a missing source is told before any folder is touched
    for place in places:
        try:
            if place is places[-1]:
                place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as temporary, open(temporary, "wb") as target:
                header = _write(source, target, rna=rna, progress=progress)
            return IndexStore(place, header)
        except OSError as error:
            raise _no_place(place, error) from error
        except OutputError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _READ_ONLY:
                raise
            if place is places[-1]:
                raise _no_place(place, cause) from error
            logger.info("%s cannot be written; the index goes to the cache folder", place.parent)
    raise AssertionError("no place was tried")


def _no_place(place: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the index cannot be written ({error.strerror or error})",
        "set GENOMAMBA_CACHE to a folder that can be",
        file=place,
    )


def _write(source: PathLike, target: IO[bytes], *, rna: bool, progress: Progress | None) -> IndexHeader:
    writer = _HoleWriter(target)
    collector = Collector(source, writer.write, rna=rna)
    with SourceFile(source, progress) as file:
        read_sequences(file, collector)
        fingerprint = file.finish()
    letters = residue_codes.letter_counts(collector.letters)
    contigs, normalised = tuple(collector.contigs), dict(collector.normalised)
    names, lengths, n, soft_masked = zip(*map(astuple, contigs), strict=True)
    text = json.dumps(
        {
            "names": names,
            "lengths": lengths,
            "n": n,
            "soft_masked": soft_masked,
            "letters": letters,
            "normalised": normalised,
            "fingerprint": fingerprint,
        }
    ).encode()
    header_at = writer.finish()
    seal = _digest(text)
    layout = {"header_at": header_at, "bytes": header_at + len(text), "seal": seal}
    target.seek(header_at)
    target.write(text)
    target.seek(0)
    target.write(_MAGIC + json.dumps(layout).encode() + b"\n")
    target.seek(_STAT_AT)
    target.write(_pack_record(_stat_record(file.stat), file.opened_ns))
    return IndexHeader(contigs, letters, normalised, fingerprint, seal)


class _HoleWriter:
    """Writes from the second page on, and leaves pages of zeros unwritten."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._at = target, _PAGE
        self._buffer = np.zeros(_BUFFER, dtype=np.uint8)
        self._used = 0

    def write(self, values: NDArray[np.uint8]) -> None:
        while values.size:
            taken = min(values.size, _BUFFER - self._used)
            self._buffer[self._used : self._used + taken] = values[:taken]
            self._used += taken
            values = values[taken:]
            if self._used == _BUFFER:
                self._flush()

    def finish(self) -> int:
        """Writes what is left; returns the offset behind the last value."""
        end = self._at + self._used
        self._flush()
        self._target.truncate(end)
        return end

    def _flush(self) -> None:
        self._buffer[self._used :] = 0
        filled = np.bitwise_or.reduce(self._buffer.view(np.uint64).reshape(-1, _PAGE // 8), axis=1) != 0
        edges = np.flatnonzero(np.diff(filled, prepend=False, append=False)) * _PAGE
        for start, stop in edges.reshape(-1, 2).tolist():
            self._target.seek(self._at + start)
            self._target.write(self._buffer[start:stop].data)
        self._at += self._used
        self._used = 0


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _stat_record(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _pack_record(record: list[int], looked_at_ns: int) -> bytes:
    text = json.dumps([*record, looked_at_ns])
    return f"{text} {zlib.crc32(text.encode())}\n".encode()


def _trusted(place: Path, now: list[int]) -> bool:
    """Whether the source's status is the recorded one, and old enough for its time stamps to tell changes."""
    try:
        with open(place, "rb") as file:
            file.seek(_STAT_AT)
            text, _, checksum = file.read(_PAGE - _STAT_AT).split(b"\n", 1)[0].rpartition(b" ")
        if int(checksum) != zlib.crc32(text):
            return False
        *record, looked_at_ns = json.loads(text)
    except (OSError, ValueError):
        return False
    ctime_ns = now[2]
    return record == now and ctime_ns < looked_at_ns - _RACE_NS


def _refresh(place: Path, record: list[int], looked_at_ns: int) -> None:
    """Notes that the content still agrees; a reader that meets a half-written record only hashes once more."""
    try:
        with open(place, "r+b") as file:
            file.seek(_STAT_AT)
            file.write(_pack_record(record, looked_at_ns))
    except OSError as error:
        logger.debug("%s keeps its old stat record: %s", place, error)
