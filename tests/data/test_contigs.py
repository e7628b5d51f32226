import pytest

from genomamba.data.contigs import alias, match_contigs
from genomamba.errors import RegionError

HAVE = {"chr1": 100, "chr2": 90, "chrX": 80, "chrM": 16, "KI27.1": 5}


@pytest.mark.parametrize(
    ("name", "length", "expected"),
    [
        ("1", None, "chr1"),
        ("1", 100, "chr1"),
        ("1", 99, None),
        ("X", 80, "chrX"),
        ("MT", 16, "chrM"),
        ("M", None, "chrM"),
        ("chrMT", None, "chrM"),
        ("MT", 17, None),
        ("CHR2", None, "chr2"),
        ("chrKI27.1", 5, "KI27.1"),
        ("3", None, None),
        ("chr", None, None),
    ],
)
def test_aliases(name, length, expected):
    assert alias(name, HAVE, length) == expected


def test_an_alias_that_fits_two_contigs_is_none():
    assert alias("CHR1", {"chr1": 5, "1": 5}) is None
    assert alias("CHR1", {"chr1": 5, "1": 6}, 6) == "1"


def test_equal_names_match_and_the_rest_is_left_out():
    assert match_contigs({"chr1": None, "2": 90, "zz": None}, HAVE) == {"chr1": "chr1"}
    assert match_contigs({"chr1": None, "2": 90, "zz": None}, HAVE, aliases="auto") == {"chr1": "chr1", "2": "chr2"}
    assert match_contigs({}, HAVE) == {}


def test_given_aliases_are_followed():
    assert match_contigs({"NC_1": None, "2": None}, HAVE, aliases={"NC_1": "chr1"}) == {"NC_1": "chr1"}
    with pytest.raises(RegionError, match=r"alias=NC_1=chr9: g\.fa has no contig 'chr9'; it has chr1, chr2"):
        match_contigs({"NC_1": None}, HAVE, aliases={"NC_1": "chr9"}, reference="g.fa")


def test_nothing_in_common_lists_both_sides():  # 32
    with pytest.raises(RegionError) as caught:
        match_contigs({"1": None, "MT": None}, HAVE, file="x.bed", reference="g.fa")
    assert str(caught.value) == (
        "x.bed: no contig in common: here 1, MT; in g.fa chr1, chr2, chrX, chrM, KI27.1; "
        "pass --contig-aliases auto to match these names"
    )
    with pytest.raises(RegionError, match="files of one and the same assembly"):
        match_contigs({"1": 7}, HAVE)
    with pytest.raises(RegionError, match="files of one and the same assembly"):
        match_contigs({"1": 7}, HAVE, aliases="auto")
    many = {f"scaffold{i}": None for i in range(1000)}
    with pytest.raises(RegionError, match=r"scaffold5, … \(1000 in all\)"):
        match_contigs(many, HAVE)
