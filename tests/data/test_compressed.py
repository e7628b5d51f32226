import gzip
import os

import pytest
from bgzip_blocks import END_OF_FILE, bgzip, bgzip_block
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.compressed import decompressed, open_decompressed, sniff
from genomamba.errors import RegionError, SequenceFileError


class Trickle:
    """A source that gives as little as it is allowed to."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step, self.at = data, step, 0

    def read(self, size: int, /) -> bytes:
        piece = self.data[self.at : self.at + min(size, self.step)]
        self.at += len(piece)
        return piece


@given(st.binary(max_size=300), st.integers(1, 100), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_content_is_the_same_however_it_is_compressed_and_read(data, block, step):
    for stored, kind in ((data, "plain"), (gzip.compress(data), "gzip"), (bgzip(data, block), "bgzip")):
        assert b"".join(decompressed(Trickle(stored, step), kind, "f")) == data


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100), st.data())
@settings(max_examples=100, deadline=None)
def test_no_cut_of_a_bgzip_file_goes_unnoticed(data, block, draw):
    stored = bgzip(data, block)
    cut = draw.draw(st.integers(1, len(stored) - 1))
    with pytest.raises(SequenceFileError, match=r"^f: .*(cut|no bgzip block)"):
        list(decompressed(Trickle(stored[:cut], 64), "bgzip", "f"))


@given(st.binary(min_size=30, max_size=300), st.data())
@settings(max_examples=100, deadline=None)
def test_no_changed_byte_of_a_block_gives_other_content(data, draw):
    stored = bytearray(bgzip(data))
    at = draw.draw(st.integers(0, len(stored) - len(END_OF_FILE) - 1))
    stored[at] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        found = b"".join(decompressed(Trickle(bytes(stored), 1 << 20), "bgzip", "f"))
    except SequenceFileError:
        return
    assert found == data  # a header byte without meaning, such as the time


def test_bad_crc_is_named():
    stored = bytearray(bgzip(b"ACGT" * 100))
    stored[-len(END_OF_FILE) - 8] ^= 1
    with pytest.raises(SequenceFileError, match=r"block at byte 0 fails its checksum \(CRC\)"):
        list(decompressed(Trickle(bytes(stored), 99), "bgzip", "f"))


def test_bgzip_files_joined_end_to_end_and_other_extra_fields_are_fine():
    stored = bgzip(b"one") + bgzip_block(b"two", extra=b"XY\x03\x00abc") + END_OF_FILE
    assert sniff(bgzip_block(b"two", extra=b"XY\x03\x00abc")[:64], "f") == "bgzip"
    assert b"".join(decompressed(Trickle(stored, 7), "bgzip", "f")) == b"onetwo"


def test_what_follows_the_last_block_is_refused():
    with pytest.raises(SequenceFileError, match="no bgzip block"):
        list(decompressed(Trickle(bgzip(b"one") + b"rubbish", 50), "bgzip", "f"))


@pytest.mark.parametrize(
    ("head", "problem"),
    [(b"", "empty"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\3\4", "zip")],
)
def test_other_compressions_are_named(head, problem):
    with pytest.raises(RegionError, match=problem):
        sniff(head, "f", RegionError)


def test_lines_of_a_file_whose_name_lies(tmp_path):
    for name, stored in (("a.gz", b"x\ny\n"), ("b.txt", gzip.compress(b"x\ny\n")), ("c", bgzip(b"x\ny\n", 3))):
        path = tmp_path / name
        path.write_bytes(stored)
        with open_decompressed(path) as lines:
            assert list(lines) == [b"x\n", b"y\n"]


def test_a_cut_gzip_file_is_refused(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"ACGT\n" * 1000)[:-12])
    with open_decompressed(path, RegionError) as lines, pytest.raises(RegionError, match=r"a\.gz: .*cut short"):
        list(lines)


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("none", "no such file"),
        (".", "it is a folder; give a file"),
        ("pipe", "not a regular file"),
    ):
        with pytest.raises(SequenceFileError, match=problem):
            open_decompressed(tmp_path / name)
