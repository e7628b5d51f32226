"""Files by what they hold, not by what they are called: plain, gzip, or bgzip with every block checked.

htslib only warns when a bgzip file lacks its last block, and so serves a shorter genome; here it is an error.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Literal, Protocol

from genomamba.errors import SequenceFileError, UserError

Compression = Literal["plain", "gzip", "bgzip"]
PathLike = str | os.PathLike[str]

CHUNK_BYTES = 4 << 20
_FOREIGN = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class ByteSource(Protocol):
    """What can be read from start to end."""

    def read(self, size: int, /) -> bytes: ...


def check_there(path: PathLike, error: type[UserError] = SequenceFileError) -> None:
    """Raises ``error`` where nothing is; what is there may still not be readable."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise error("no such file", "check the path and its permissions", file=path) from problem
    except OSError:
        pass


def open_regular(path: PathLike, error: type[UserError] = SequenceFileError) -> IO[bytes]:
    """The file opened for reading, unbuffered.

    Raises:
        UserError: (as ``error``) it does not exist, cannot be read, or is a folder or a pipe.
    """
    check_there(path, error)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise error("it is a folder", "give a file", file=path)
        if not stat.S_ISREG(mode):  # before it is opened: a pipe would wait for a writer
            raise error("not a regular file", "write it to a file first; it is read more than once", file=path)
        return open(path, "rb", buffering=0)
    except OSError as problem:
        raise error(
            f"cannot be opened ({problem.strerror})", "check the path and its permissions", file=path
        ) from problem


def sniff(head: bytes, path: PathLike, error: type[UserError] = SequenceFileError) -> Compression:
    """How a file that begins with ``head`` is compressed.

    Raises:
        UserError: (as ``error``) it is empty, or compressed in another way.
    """
    if not head:
        raise error("the file is empty", "check how it was made", file=path)
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise error(f"compressed with {name}", "decompress it, or compress it with bgzip", file=path)
    if not head.startswith(b"\x1f\x8b"):
        return "plain"
    return "bgzip" if _block_size(head) else "gzip"


def decompressed(
    source: ByteSource, compression: Compression, path: PathLike, error: type[UserError] = SequenceFileError
) -> Iterator[bytes]:
    """The content in chunks of some megabytes.

    Raises:
        UserError: (as ``error``) the compressed data is damaged or cut short.
    """
    if compression == "plain":
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
    elif compression == "gzip":
        yield from _gunzip(source, path, error)
    else:
        yield from _bgunzip(source, path, error)


def open_decompressed(path: PathLike, error: type[UserError] = SequenceFileError) -> io.BufferedReader:
    """A buffered binary stream of the content, whichever of the three ways the file is compressed."""
    source = open_regular(path, error)
    try:
        compression = sniff(source.read(64), path, error)
    except UserError:
        source.close()
        raise
    source.seek(0)
    return io.BufferedReader(ChunkStream(decompressed(source, compression, path, error), source))


class ChunkStream(io.RawIOBase):
    """A readable stream over an iterator of chunks.

    Args:
        chunks: the content.
        source: closed together with the stream.
    """

    def __init__(self, chunks: Iterator[bytes], source: IO[bytes] | None = None) -> None:
        self._chunks, self._source = chunks, source
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()


def _gunzip(source: ByteSource, path: PathLike, error: type[UserError]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    try:
        while data := source.read(CHUNK_BYTES):
            while data:
                if decoder.eof:  # members may follow one another, and zeros may fill up the last block of a tape
                    data = data.lstrip(b"\0")
                    decoder = zlib.decompressobj(wbits=31) if data else decoder
                if piece := decoder.decompress(data, CHUNK_BYTES):
                    yield piece
                data = decoder.unused_data or decoder.unconsumed_tail
    except zlib.error as problem:
        raise _damaged(f"the gzip data is damaged ({problem})", path, error) from problem
    if not decoder.eof:
        raise _damaged("the gzip data is cut short", path, error)


def _bgunzip(source: ByteSource, path: PathLike, error: type[UserError]) -> Iterator[bytes]:
    """Blocks as in the SAM specification, section 4.1: each a gzip member that states its own size."""
    buffer, at, offset = b"", 0, 0  # offset: where ``buffer`` begins in the file
    last_is_empty = False
    while True:
        more = source.read(CHUNK_BYTES)
        buffer, offset, at = buffer[at:] + more, offset + at, 0
        pieces: list[bytes] = []
        size_of_pieces = 0
        while True:
            size = _block_size(buffer[at : at + 1024])
            if size is None and len(buffer) - at >= 1024 + 65536:
                raise _damaged(f"no bgzip block begins at byte {offset + at}", path, error)
            if size is None or at + size > len(buffer):
                break
            piece = _inflate(buffer[at : at + size], offset + at, path, error)
            last_is_empty = not piece
            pieces.append(piece)
            at += size
            size_of_pieces += len(piece)
            if size_of_pieces >= CHUNK_BYTES:
                yield b"".join(pieces)
                pieces, size_of_pieces = [], 0
        if pieces:
            yield b"".join(pieces)
        if not more:
            break
    if at < len(buffer):
        what = "is cut short" if _block_size(buffer[at : at + 1024]) else "is no bgzip block"
        raise _damaged(f"what stands at byte {offset + at} {what}", path, error)
    if not last_is_empty:
        raise _damaged("bgzip's end-of-file block is missing, so the file was probably cut", path, error)


def _block_size(head: bytes) -> int | None:
    """Bytes of the bgzip block that ``head`` begins with; None where it begins with none."""
    if len(head) < 18 or head[:3] != b"\x1f\x8b\x08" or not head[3] & 4:
        return None
    (extra,) = struct.unpack_from("<H", head, 10)
    at = 12
    while at + 4 <= min(12 + extra, len(head)):
        tag, length = head[at : at + 2], struct.unpack_from("<H", head, at + 2)[0]
        if tag == b"BC" and length == 2 and at + 6 <= len(head):
            return int(struct.unpack_from("<H", head, at + 4)[0]) + 1
        at += 4 + length
    return None


def _inflate(block: bytes, offset: int, path: PathLike, error: type[UserError]) -> bytes:
    start = 12 + struct.unpack_from("<H", block, 10)[0]
    try:
        checksum, size = struct.unpack_from("<II", block, len(block) - 8)
        data = zlib.decompress(block[start:-8], wbits=-15, bufsize=max(size, 1))
    except (zlib.error, struct.error) as problem:
        raise _damaged(f"the bgzip block at byte {offset} is damaged ({problem})", path, error) from problem
    if len(data) != size or zlib.crc32(data) != checksum:
        raise _damaged(f"the bgzip block at byte {offset} fails its checksum (CRC)", path, error)
    return data


def _damaged(problem: str, path: PathLike, error: type[UserError]) -> UserError:
    return error(problem, "fetch or compress the file again", file=path)
