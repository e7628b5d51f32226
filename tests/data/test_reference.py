import os
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from bgzip_blocks import bgzip
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.index import build_index
from genomamba.data.reference import Reference
from genomamba.errors import RegionError, SequenceFileError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower()


def wrapped(contigs: dict[str, str], width: int, newline: str = "\n") -> bytes:
    lines: list[str] = []
    for name, sequence in contigs.items():
        lines += [f">{name}", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    return (newline.join(lines) + newline).encode()


def _looks_like_nucleotides(letters: str) -> bool:
    """At least half of A, C, G, T, N: the reader takes anything else for protein."""
    return 2 * sum(letters.upper().count(base) for base in "ACGTN") >= len(letters)


genomes = st.dictionaries(
    st.text("ab:1", min_size=1, max_size=4),
    st.text("ACGTNacgtn" * 3 + LETTERS, min_size=1, max_size=80),
    min_size=1,
    max_size=4,
).filter(lambda genome: _looks_like_nucleotides("".join(genome.values())))


@given(genomes, st.integers(1, 30), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]), st.data())
@settings(max_examples=40, deadline=None)
def test_every_way_of_reading_gives_what_was_written(tmp_path_factory, genome, width, block, newline, data):
    folder = tmp_path_factory.mktemp("genomes")
    plain, packed = folder / "plain.fa", folder / "packed.fa.gz"
    plain.write_bytes(wrapped(genome, width, newline))
    packed.write_bytes(bgzip(wrapped(genome, width, newline), block))
    ways = [Reference.open(path, cache=cache) for path in (plain, packed) for cache in (True, False)]
    assert all(list(way.contigs.items()) == [(name, len(s)) for name, s in genome.items()] for way in ways)
    for name, sequence in genome.items():
        start = data.draw(st.integers(0, len(sequence)))
        end = data.draw(st.integers(start, len(sequence)))
        expected = np.frombuffer(sequence[start:end].encode(), np.uint8)
        ids = alphabet.encode(expected)
        for way in ways:
            here, there = Interval(name, start, end), Interval(name, start, end, "-")
            assert way.fetch(here).tolist() == expected.tolist()
            assert way.fetch(there).tolist() == alphabet.reverse_complement_residues(expected).tolist()
            assert way.ids(here).tolist() == ids.tolist()
            assert way.ids(there).tolist() == alphabet.reverse_complement(ids).tolist()
            assert way.softmask(here).tolist() == alphabet.softmask(expected).tolist()
            assert way.softmask(there).tolist() == alphabet.softmask(expected)[::-1].tolist()
            assert way.sequence(name, start, end) == sequence[start:end].upper()
    assert sorted(p.name for p in folder.iterdir()) == ["packed.fa.gz", "packed.fa.gz.gmi", "plain.fa", "plain.fa.gmi"]


@pytest.fixture(params=[True, False], ids=["index", "no index"])
def reference(request, tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b"\xef\xbb\xbf>chr1 first\nACGTNacgRY\nAC\n>empty\n>chr2\nGGG\n\n")
    return Reference.open(path, cache=request.param)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval("chr1", 0, 13), "region=chr1:1-13: the interval leaves its contig, which has 12 bases"),
        (Interval("chr1", -1, 3), "leaves its contig"),
        (Interval("chr1", 13, 13), "leaves its contig"),
        (Interval("1", 0, 3), "contig=1: {path} has no such contig; it has chr1, empty, chr2; --contig-aliases auto"),
        (Interval("empty", 0, 0), "contig=empty: the contig is an empty record of {path}"),
    ],
)
def test_what_is_not_there_is_refused(reference, interval, words):
    for read in (reference.fetch, reference.ids, reference.softmask):
        with pytest.raises(RegionError) as caught:
            read(interval)
        assert words.format(path=reference.path) in str(caught.value)


def test_summary(reference):
    found = reference.summary()
    assert (found.contigs, found.bases, found.n, found.soft_masked, found.ambiguous) == (3, 15, 1, 3, 2)
    assert found.empty == ("empty",)
    assert found.normalised == {"byte-order mark": 1, "blank lines after a record": 1}
    assert found.letters["G"] == 4
    assert found.fingerprint == reference.fingerprint
    assert (found.index is None) or found.index.exists()
    assert "15 bases" in repr(reference)


def test_a_result_may_be_written_to(reference):
    for read in (reference.fetch, reference.ids):
        read(Interval("chr2", 0, 3))[:] = 0
    assert reference.fetch(Interval("chr2", 0, 3)).tobytes() == b"GGG"


def test_the_fingerprint_is_the_contents(tmp_path):
    for name, text in (("a", ">x\nAC\n"), ("b", ">x\nAC\n"), ("c", ">x\nAG\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (Reference.open(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c


def _count_wrong(reference: Reference, sequence: str, seed: int) -> int:
    choose = random.Random(seed)
    wrong = 0
    for _ in range(500):
        start = choose.randrange(len(sequence))
        end = choose.randrange(start, len(sequence) + 1)
        wrong += reference.fetch(Interval("c", start, end)).tobytes().decode() != sequence[start:end]
    return wrong


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_handle_that_was_opened_before_workers_start(tmp_path, cache, method):
    sequence = "".join(random.Random(0).choices("ACGTacgtN", k=5000))
    path = tmp_path / "genome.fa"
    path.write_bytes(wrapped({"c": sequence}, 60))
    reference = Reference.open(path, cache=cache)
    assert _count_wrong(reference, sequence, 9) == 0
    context = get_context(method)
    if method == "spawn":
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(_count_wrong, [reference] * 2, [sequence] * 2, range(2))) == [0, 0]
        return
    # forked by hand: the children inherit the open handle itself, and read while the parent reads
    children = []
    for seed in range(4):
        child = os.fork()
        if child == 0:
            os._exit(min(_count_wrong(reference, sequence, seed), 99))
        children.append(child)
    assert _count_wrong(reference, sequence, 5) == 0
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def test_a_pickled_reference_never_reads_another_genome(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">a\nACGT\n")
    stored = [pickle.dumps(Reference.open(path, cache=cache)) for cache in (True, False)]
    for each in stored:
        assert pickle.loads(each).fetch(Interval("a", 0, 4)).tobytes() == b"ACGT"
    unindexed = Reference.open(path, cache=False)
    assert unindexed.sequence("a", 0, 4) == "ACGT"
    path.write_bytes(b">a\nTTTTT\n")
    build_index(path)
    with pytest.raises(SequenceFileError, match="changed while in use"):
        unindexed.sequence("a", 0, 4)
    for each, words in zip(stored, ("replaced while in use", "changed while in use"), strict=True):
        with pytest.raises(SequenceFileError, match=words):
            pickle.loads(each).fetch(Interval("a", 0, 4))


def test_without_an_index_line_ends_must_agree(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">a\r\nAC\r\nGT\nAC\n")
    with pytest.raises(SequenceFileError, match=r"line ends of a differ"):
        Reference.open(path, cache=False)
    assert Reference.open(path).sequence("a", 0, 6) == "ACGTAC"


def test_progress_is_told_where_there_is_something_to_wait_for(tmp_path):
    seen: list[tuple[int, int]] = []
    for name, bases in (("small.fa", 5), ("large.fa", 9 << 20)):
        (tmp_path / name).write_bytes(b">a\n" + b"A" * bases + b"\n")
        Reference.open(tmp_path / name, progress=lambda *at: seen.append(at))
    total = (9 << 20) + 4
    assert {whole for _, whole in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] < seen[-1][0] == total
