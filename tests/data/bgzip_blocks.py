"""bgzip files with blocks of any size, as other tools may write them."""

from __future__ import annotations

import struct
import zlib

END_OF_FILE = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzip(data: bytes, block: int = 65280, *, end: bytes = END_OF_FILE) -> bytes:
    """``data`` in blocks of ``block`` bytes (SAM specification, section 4.1)."""
    return b"".join(bgzip_block(data[i : i + block]) for i in range(0, len(data), block)) + end


def bgzip_block(data: bytes, extra: bytes = b"") -> bytes:
    """One block; ``extra`` stands before the BC subfield in the gzip header's extra field."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush()
    length = 12 + len(extra) + 6 + len(body) + 8
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra) + 6) + extra
    head += b"BC" + struct.pack("<HH", 2, length - 1)
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))
