"""The index is used only for the bytes it was made from, wherever it lies and whoever makes it: cases 16 to 25."""

import gzip
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bgzip_blocks import bgzip

from genomamba.data import index
from genomamba.data.index import SUFFIX, build_index, open_index, read_header
from genomamba.data.reference import Reference
from genomamba.data.sources import SourceFile
from genomamba.errors import OutputError, SequenceFileError
from genomamba.genome.interval import Interval

FASTA = b">a\nACGTN\nacn\n>b\nRY\n"


def text(path, contig="a", **options):
    reference = Reference.open(path, **options)
    return reference.fetch(Interval(contig, 0, reference.contigs[contig])).tobytes().decode()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GENOMAMBA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(FASTA)
    return path


@pytest.fixture
def hashes(monkeypatch):
    """Counts how often a source is read to its end."""
    calls = []
    finish = SourceFile.finish
    monkeypatch.setattr(SourceFile, "finish", lambda self: calls.append(self.path) or finish(self))
    return calls


def rewrite_unseen(path, data):
    """Other content of the same size in the same file, at the same mtime."""
    before = path.stat()
    assert len(data) == before.st_size
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_index_stands_beside_its_source(fasta):
    place = build_index(fasta)
    assert place == fasta.with_name("genome.fa" + SUFFIX)
    assert sorted(p.name for p in fasta.parent.iterdir()) == ["genome.fa", "genome.fa.gmi"]
    header = read_header(place)
    assert [(c.name, c.length, c.n, c.soft_masked) for c in header.contigs] == [("a", 8, 2, 3), ("b", 2, 0, 0)]
    assert header.letters == {"A": 1, "C": 1, "G": 1, "N": 1, "R": 1, "T": 1, "Y": 1, "a": 1, "c": 1, "n": 1}
    assert header.fingerprint.startswith(f"{len(FASTA)}-")


def test_a_good_index_is_used_again_without_reading_the_source(fasta, hashes, monkeypatch):
    monkeypatch.setattr(index, "_RACE_NS", 0)
    place = build_index(fasta)
    inode, built = place.stat().st_ino, len(hashes)
    assert text(fasta) == "ACGTNacn"
    assert build_index(fasta) == place
    assert len(hashes) == built
    os.utime(fasta)  # touched: hashed once, and noted
    assert text(fasta) == text(fasta) == "ACGTNacn"
    assert len(hashes) == built + 1
    assert place.stat().st_ino == inode
    assert build_index(fasta, force=True) == place
    assert place.stat().st_ino != inode


def test_time_stamps_of_a_moment_ago_prove_nothing(fasta, hashes):
    build_index(fasta)
    text(fasta)
    assert len(hashes) == 2


def test_a_change_that_size_and_mtime_hide_is_seen(fasta):
    assert text(fasta) == "ACGTNacn"
    rewrite_unseen(fasta, FASTA.replace(b"ACGTN", b"TTTTT"))
    assert text(fasta) == "TTTTTacn"


def test_a_change_is_seen_by_its_ctime(fasta, monkeypatch):
    monkeypatch.setattr(index, "_RACE_NS", 0)
    assert text(fasta) == "ACGTNacn"
    for _ in range(50):  # until the clock of the file system has ticked
        rewrite_unseen(fasta, FASTA.replace(b"ACGTN", b"TTTTT"))
    assert text(fasta) == "TTTTTacn"


@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "fai",
    [
        b"",
        b"a\t8",
        b"a\t8\t1\t5\t6\nb\t2\t0\t2\t3\n",
        b"a\t8\t-3\t5\t6\n",
        b"a\t0\t3\t0\t0\n",
        b"a\t800000\t3\t5\t6\n",
        b"\0\xff rubbish",
    ],
)
def test_indexes_of_other_programs_change_nothing(tmp_path, fai, newer, compress):
    path = tmp_path / ("genome.fa.gz" if compress else "genome.fa")
    path.write_bytes(bgzip(FASTA, 7) if compress else FASTA)
    for suffix in (".fai", ".gzi"):
        other = tmp_path / (path.name + suffix)
        other.write_bytes(fai)
        os.utime(other, (0, 2**31) if newer else (0, 0))
    assert text(path) == text(path, cache=False) == "ACGTNacn"
    assert (tmp_path / (path.name + ".fai")).read_bytes() == (tmp_path / (path.name + ".gzi")).read_bytes() == fai


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data[:4096],
        lambda data: data + b"x",
        lambda data: data.replace(b"genomamba index 1", b"genomamba index 2"),
        lambda data: data.replace(b'"lengths": [8, 2]', b'"lengths": [2, 8]'),
        lambda data: data.replace(b"header_at", b"headerrat"),
        lambda data: b">a\nACGT\n" * 2000,
    ],
)
def test_a_damaged_index_is_made_anew(fasta, damage):
    place = build_index(fasta)
    good = place.read_bytes()
    bad = damage(good)
    assert bad != good
    place.write_bytes(bad)
    assert text(fasta) == "ACGTNacn"
    assert read_header(place) is not None


def test_a_damaged_stat_record_costs_only_a_hash(fasta, hashes, monkeypatch):
    monkeypatch.setattr(index, "_RACE_NS", 0)
    place = build_index(fasta)
    inode = place.stat().st_ino
    with open(place, "r+b") as file:
        file.seek(2050)
        file.write(b"9999")
    assert text(fasta) == "ACGTNacn"
    assert (len(hashes), place.stat().st_ino) == (2, inode)


def test_an_index_that_was_copied_to_another_genome_is_not_used(fasta, tmp_path):
    build_index(fasta)
    other = tmp_path / "other.fa"
    other.write_bytes(FASTA.replace(b"ACGTN", b"TTTTT"))
    shutil.copy2(tmp_path / "genome.fa.gmi", tmp_path / "other.fa.gmi")
    assert text(other) == "TTTTTacn"


def test_a_genome_moved_with_its_index_keeps_it(fasta, tmp_path):
    inode = build_index(fasta).stat().st_ino
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (fasta, tmp_path / "genome.fa.gmi"):
        path.rename(moved / path.name)
    assert text(moved / "genome.fa") == "ACGTNacn"
    assert (moved / "genome.fa.gmi").stat().st_ino == inode


def test_an_index_read_as_rna_does_not_let_u_pass_as_dna(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">a\nACGU\n")
    assert text(path, rna=True) == "ACGT"
    with pytest.raises(SequenceFileError, match="--rna"):
        Reference.open(path)
    assert text(path, rna=True) == text(path, rna=True, cache=False) == "ACGT"


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (
            gzip.compress(FASTA, mtime=0),
            "plain gzip, where bgzip is needed; recompress it: gunzip -c x.fa.gz | bgzip",
        ),  # 20
        (bgzip(FASTA, 7, end=b""), "end-of-file block is missing"),  # 22
        (bgzip(FASTA, 30)[:-30], "cut short"),
        (bgzip(FASTA)[:-36] + b"\0\0\0\0" + bgzip(FASTA)[-32:], "CRC"),  # 23
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("cache", [True, False])
def test_damaged_or_wrong_compression(tmp_path, stored, problem, cache):
    path = tmp_path / "x.fa.gz"
    path.write_bytes(stored)
    with pytest.raises(SequenceFileError) as caught:
        Reference.open(path, cache=cache)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["x.fa.gz"]


@pytest.mark.parametrize("cache", [True, False])
def test_content_decides_and_not_the_name(tmp_path, cache):  # 21
    (tmp_path / "a.fa.gz").write_bytes(FASTA)
    (tmp_path / "b.fa").write_bytes(bgzip(FASTA, 5))
    assert text(tmp_path / "a.fa.gz", cache=cache) == text(tmp_path / "b.fa", cache=cache) == "ACGTNacn"


def test_a_malformed_source_leaves_nothing_behind(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b">a\nACGT\n>b\nAC*T\n")
    with pytest.raises(SequenceFileError, match=r"x\.fa:4: "):
        build_index(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.fa"]


def test_a_missing_source_touches_nothing(tmp_path):
    with pytest.raises(SequenceFileError, match="no such file"):
        build_index(tmp_path / "sub" / "none.fa")
    assert not list(tmp_path.iterdir())


def test_a_source_that_changes_under_the_reader_is_refused(fasta):
    with SourceFile(fasta) as file:
        file.read(4)
        with open(fasta, "ab") as other:
            other.write(b"ACGT\n")
        with pytest.raises(SequenceFileError, match="changed while it was read"):
            file.finish()


@pytest.fixture
def read_only():
    """A folder that this process cannot write to, even where the tests are run by root."""
    folder = Path(tempfile.mkdtemp())
    (folder / "genome.fa").write_bytes(FASTA)
    cache = Path(tempfile.mkdtemp())
    cache.chmod(0o777)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder, cache
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    shutil.rmtree(cache)


def test_beside_a_source_in_a_read_only_folder_the_cache_is_used(read_only, monkeypatch, hashes):
    folder, cache = read_only
    monkeypatch.setattr(index, "_RACE_NS", 0)
    monkeypatch.delenv("GENOMAMBA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    place = build_index(folder / "genome.fa")
    assert place.parent == cache / "genomamba"
    assert place.name.startswith("genome.fa.")
    assert text(folder / "genome.fa") == "ACGTNacn"
    assert len(hashes) == 1
    assert [p.name for p in folder.iterdir()] == ["genome.fa"]
    monkeypatch.setenv("GENOMAMBA_CACHE", str(folder / "cache"))
    with pytest.raises(OutputError, match="set GENOMAMBA_CACHE to a folder"):
        build_index(folder / "genome.fa")


def test_a_stale_index_in_a_read_only_folder_is_passed_over(read_only, monkeypatch):
    folder, cache = read_only
    monkeypatch.setenv("GENOMAMBA_CACHE", str(cache))
    elsewhere = cache / "genome.fa"
    elsewhere.write_bytes(FASTA.replace(b"ACGTN", b"TTTTT"))
    stale = build_index(elsewhere).read_bytes()
    user = os.geteuid()
    os.seteuid(os.getuid())
    folder.chmod(0o755)
    (folder / "genome.fa.gmi").write_bytes(stale)
    folder.chmod(0o555)
    os.seteuid(user)
    for _ in range(2):
        assert text(folder / "genome.fa") == "ACGTNacn"
    assert (folder / "genome.fa.gmi").read_bytes() == stale


def test_without_a_home_there_is_no_cache_but_beside_the_source_is_fine(fasta, monkeypatch):
    monkeypatch.delenv("GENOMAMBA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert index.cache_folder() is None
    assert build_index(fasta).parent == fasta.parent


def test_an_index_that_vanishes_before_the_first_read(fasta):
    reference = Reference.open(fasta)
    fasta.with_name("genome.fa.gmi").unlink()
    with pytest.raises(SequenceFileError, match="the index cannot be opened"):
        reference.sequence("a", 0, 1)


def test_the_cache_keeps_genomes_of_one_name_apart(tmp_path):
    cache = tmp_path / "chosen"
    for name, letter in (("x", "A"), ("y", "C")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "genome.fa").write_text(f">a\n{letter}\n")
    for _ in range(2):
        assert text(tmp_path / "x" / "genome.fa", cache_dir=cache) == "A"
        assert text(tmp_path / "y" / "genome.fa", cache_dir=cache) == "C"
    assert len(list(cache.iterdir())) == 2


CHILD = """
import sys
from genomamba.data.reference import Reference
from genomamba.genome.interval import Interval
reference = Reference.open(sys.argv[1])
assert len(reference.contigs) == 3000
for i, (name, length) in enumerate(reference.contigs.items()):
    found = reference.fetch(Interval(name, 0, length)).tobytes().decode()
    assert found == ("ACGT"[i % 4] + "ACGT"[i // 4 % 4]) * (1 + i % 50), name
print("right")
"""


def test_eight_processes_at_once(tmp_path):  # 25
    path = tmp_path / "many.fa"
    units = ["ACGT"[i % 4] + "ACGT"[i // 4 % 4] for i in range(3000)]
    path.write_text("".join(f">c{i}\n{unit * (1 + i % 50)}\n" for i, unit in enumerate(units)))
    command = [sys.executable, "-c", CHILD, str(path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    results = [child.communicate() for child in children]
    assert results == [("right\n", "")] * 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.fa", "many.fa.gmi"]


def test_a_file_size_limit_leaves_the_old_index_intact(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(FASTA)
    place = build_index(path)
    old = place.read_bytes()
    sequence = np.random.default_rng(0).choice(list(b"ACGT"), 100_000).astype(np.uint8).tobytes()
    path.write_bytes(b">a\n" + sequence + b"\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OutputError, match=r"genome\.fa\.gmi: it could not be written \(File too large\)"):
            open_index(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["genome.fa", "genome.fa.gmi"]
    assert text(path) == sequence.decode()


def test_long_runs_of_n_take_no_room(tmp_path):
    path = tmp_path / "genome.fa"
    lines = b"\n".join([b"N" * 100] * 200_000)
    path.write_bytes(b">a\n" + lines + b"\n>b\nACGT\n>c\n" + lines + b"\n")
    place = build_index(path)
    status = place.stat()
    assert status.st_size > 40_000_000
    assert status.st_blocks * 512 < 1_000_000
    assert text(path, "b") == "ACGT"
    assert set(text(path, "c")) == {"N"}


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, (1 << 22) - 1, 1 << 22, (1 << 22) + 1])
def test_no_residue_is_lost_at_the_edges_of_pages_and_buffers(tmp_path, size):
    sequence = np.random.default_rng(size).choice(list(b"ACGTN"), size).astype(np.uint8)
    sequence[size // 3 : size // 2] = ord("N")
    path = tmp_path / "genome.fa"
    path.write_bytes(b">a\n" + sequence.tobytes() + b"\n>b\nACG\n")
    assert text(path) == sequence.tobytes().decode()
    assert text(path, "b") == "ACG"
