import gzip

import pytest
from bgzip_blocks import bgzip

from genomamba.data.bed import PlacedRegion, place, read_bed
from genomamba.errors import RegionError
from genomamba.genome.interval import Interval


@pytest.fixture
def bed(tmp_path):
    def write(text):
        path = tmp_path / "x.bed"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_records_in_order_with_their_lines(bed):
    text = (
        "\ufeffbrowser position chr1:1-2\ntrack name=x\n# note\n"  # 31
        "chr1\t5\t9\n\nchr1\t5\t9\tsite\t0\t-\textra\r\nchr2\t0\t0\tempty\nchr1\t5\t9"  # 27, 34
    )
    assert list(read_bed(bed(text))) == [
        (4, Interval("chr1", 5, 9, "."), ""),
        (6, Interval("chr1", 5, 9, "-"), "site"),
        (7, Interval("chr2", 0, 0, "."), "empty"),
        (8, Interval("chr1", 5, 9, "."), ""),
    ]


@pytest.mark.parametrize("pack", [gzip.compress, bgzip, lambda data: data])
def test_however_it_is_compressed(bed, pack):
    assert [record.interval.end for record in read_bed(bed(pack(b"a\t1\t2\nb\t3\t4\n")))] == [2, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\t1\t2\na\t9\t5\n", ":2: end=5: it lies before the start, 9"),  # 26
        ("a\t-1\t5\n", ":1: start=-1: a negative coordinate"),
        ("a\t1\t-5\n", ":1: end=-5: a negative coordinate"),
        ("a\t1.86e+08\t1.87e+08\n", ":1: start=1.86e+08: not a whole number; write it out in digits"),  # 29
        ("a\t1\t5.0\n", "end=5.0: not a whole number"),
        ("a\t1,000\t2,000\n", "start=1,000: not a whole number"),
        ("a\t1\t" + "9" * 5000 + "\n", "not a whole number"),
        ("a\t1_0\t20\n", "not a whole number"),
        ("a\t١\t٢\n", "not a whole number"),
        ("a\t\t5\n", "start=: not a whole number"),
        ("a 1 5\n", ":1: columns=1: spaces where tabs should be; separate"),  # 30
        ("a\t1\n", "columns=2: fewer than three columns"),
        ("a\t1\t5\tn\t0\tx\n", "strand=x: no strand; use +, - or ."),  # 33
        ("a\t1\t5\tn\t0\t\n", "strand=: no strand"),
        ("\t1\t5\n", "no name"),
        (b"a\t1\t5\t\xff\n", ":1: the line is not UTF-8"),
        (b"a\t1\t5\rb\t2\t6\r", "not a whole number"),
        (b"", ": the file is empty"),
        (gzip.compress(b"a\t1\t5\n" * 99, mtime=0)[:-9], ": the gzip data is cut short"),
        (bgzip(b"a\t1\t5\n", end=b""), ": bgzip's end-of-file block is missing"),
    ],
)
def test_malformed_lines(bed, text, words):
    path = bed(text)
    with pytest.raises(RegionError) as caught:
        list(read_bed(path))
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


REGIONS = "1\t0\t4\n1\t5\t20\n1\t10\t12\n1\t3\t3\nzz\t0\t5\n1\t4\t10\n"


def test_edges(bed):  # 27, 28, 32
    records = list(read_bed(bed(REGIONS)))

    def placed(edge):
        return list(place(records, {"chr1": 10}, {"1": "chr1"}, edge=edge, file="x.bed"))

    whole = [PlacedRegion(records[i], Interval("chr1", a, b, "."), 0, 0, None) for i, a, b in ((0, 0, 4), (5, 4, 10))]
    nowhere = [
        PlacedRegion(records[3], None, 0, 0, "SKIP_ZERO_LENGTH"),
        PlacedRegion(records[4], None, 0, 0, "SKIP_NO_CONTIG"),
    ]
    off = PlacedRegion(records[2], None, 0, 0, "SKIP_OFF_CONTIG")
    padded = PlacedRegion(records[1], Interval("chr1", 5, 10, "."), 0, 10, None)
    edge = PlacedRegion(records[1], None, 0, 0, "SKIP_CONTIG_EDGE")
    assert placed("pad") == [whole[0], padded, off, *nowhere, whole[1]]
    assert placed("skip") == [whole[0], edge, off, *nowhere, whole[1]]
    with pytest.raises(RegionError, match=r"^x\.bed:2: end=20: the region passes the end of chr1, which has 10 bases"):
        placed("error")
