import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.errors import RegionError
from genomamba.genome.interval import Interval, parse_region

CONTIGS = {"chr1": 2000, "HLA-A*01:01": 500, "chr2:1-5": 30, "chr2": 40, "a:b": 9}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1:1,001-2,000", Interval("chr1", 1000, 2000)),
        ("chr1:1-1", Interval("chr1", 0, 1)),
        ("chr1", Interval("chr1", 0, 2000)),
        ("chr1:5-", Interval("chr1", 4, 2000)),
        ("HLA-A*01:01", Interval("HLA-A*01:01", 0, 500)),
        ("HLA-A*01:01:3-4", Interval("HLA-A*01:01", 2, 4)),
        ("{chr2:1-5}", Interval("chr2:1-5", 0, 30)),
        ("{chr2:1-5}:2-3", Interval("chr2:1-5", 1, 3)),
        ("{chr2}:1-5", Interval("chr2", 0, 5)),
        ("a:b", Interval("a:b", 0, 9)),
        ("chr1:1999-2500", Interval("chr1", 1998, 2500)),
    ],
)
def test_regions(text, expected):
    assert parse_region(text, CONTIGS) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chr9:1-5", "contig 'chr9' is unknown; the known ones are chr1, HLA"),
        ("chr9", "unknown"),
        ("", "unknown"),
        ("chr1:0-5", "start at 1"),
        ("chr1:7-5", "before the start"),
        ("chr1:-5-7", "not a range"),
        ("chr1:5", "write chr1:5-5 for one base, or chr1:5-"),
        ("chr1:1e3-2e3", "not a range"),
        ("chr1:x", "not a range"),
        ("chr1:", "not a range"),
        ("chr1:١-٢", "not a range"),
        ("chr2:1-5", "also a range of another; write {chr2:1-5} or {chr2}:1-5"),
        ("{chr2}x", "braces"),
    ],
)
def test_what_is_no_region_is_refused(text, problem):
    with pytest.raises(RegionError) as caught:
        parse_region(text, CONTIGS)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("region=")


def test_open_ranges_need_the_contig_lengths():
    assert parse_region("chr1:11-20") == Interval("chr1", 10, 20)
    for text in ("chr1", "chr1:11-"):
        with pytest.raises(RegionError, match="give its end"):
            parse_region(text)


@given(st.sampled_from(sorted(CONTIGS)), st.integers(0, 10**9), st.integers(1, 10**7))
@settings(max_examples=50, deadline=None)
def test_a_printed_interval_is_read_back(contig, start, length):
    interval = Interval(contig, start, start + length)
    assert parse_region(f"{{{contig}}}:{str(interval).rpartition(':')[2]}", CONTIGS) == interval
    assert parse_region(str(interval)) == interval


@pytest.mark.parametrize(
    ("args", "field"), [(("chr1", 5, 4), "interval"), (("", 0, 1), "contig"), (("c", 0, 1, "x"), "strand")]
)
def test_intervals_that_are_none(args, field):
    with pytest.raises(RegionError) as caught:
        Interval(*args)
    assert caught.value.field == field


def test_overlap_is_of_bases_on_one_contig():
    a = Interval("c", 5, 10)
    assert a.overlaps(Interval("c", 9, 20, "-"))
    assert not a.overlaps(Interval("c", 10, 20))
    assert not a.overlaps(Interval("d", 5, 10))
    assert not a.overlaps(Interval("c", 7, 7))
    assert a.contains(Interval("c", 5, 10, "-"))
    assert not a.contains(Interval("c", 4, 6))


@given(st.integers(-50, 150), st.integers(0, 60), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_clipping_accounts_for_every_base(start, length, contig_length):
    interval = Interval("c", start, start + length, "-")
    inside, low, high = interval.clip(contig_length)
    kept = [p for p in range(start, start + length) if 0 <= p < contig_length]
    assert inside.length == len(kept)
    assert 0 <= inside.start <= inside.end <= contig_length
    assert (not kept) or inside.start == kept[0]
    assert low == sum(p < 0 for p in range(start, start + length))
    assert high == sum(p >= max(contig_length, 0) for p in range(start, start + length))
    assert inside.strand == "-"


@given(st.integers(0, 1000), st.integers(0, 50), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_resizing_keeps_the_centre(start, length, width):
    interval = Interval("c", start, start + length)
    resized = interval.resize(width)
    assert resized.length == width
    assert resized.start + width // 2 == start + length // 2
    assert interval.resize(length) == interval
    assert interval.shift(7).shift(-7) == interval


def test_intervals_sort_by_place():
    assert sorted([Interval("b", 1, 2), Interval("a", 5, 6), Interval("a", 3, 9)])[0] == Interval("a", 3, 9)
