"""Malformed and ill-placed regions, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from world import CliResult, RunCli, World

Evaluate = Callable[..., CliResult]


@pytest.fixture
def evaluate(run_cli: RunCli, world: World, tmp_path: Path) -> Evaluate:
    """``evaluate(text, *options)`` measures the regions that ``text`` lists, and writes out.tsv."""

    def run(text: str, *options: str) -> CliResult:
        bed = tmp_path / "x.bed"
        bed.write_bytes(text.encode())
        words = ("-r", world.reference, "-b", bed, "-m", world.pretrained, "-o", tmp_path / "out.tsv")
        return run_cli("evaluate", "regions", *words, *options)

    return run


REFUSED = {
    "end before start": ("chrA\t10\t90\nchrA\t90\t10\n", ":2: end=10: it lies before the start, 90"),  # 26
    "negative": ("chrA\t-5\t10\n", ":1: start=-5: a negative coordinate"),
    "past the end": ("chrA\t9990\t10010\n", ":1: end=10010: the region passes the end of chrA, which has 10000"),  # 28
    "exponent": ("chrA\t1.86e+03\t2000\n", ":1: start=1.86e+03: not a whole number"),  # 29
    "spaces": ("chrA 10 20\n", ":1: columns=1: spaces where tabs should be"),  # 30
    "no common contig": ("A\t10\t20\nB\t1\t2\n", ": no contig in common: here A, B; in "),  # 32
    "strand": ("chrA\t10\t20\tn\t0\tx\n", ":1: strand=x: no strand"),  # 33
    "no record": ("# nothing\n", ": it holds no region"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(evaluate: Evaluate, tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    result = evaluate(text)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{tmp_path}/x.bed{words}")
    assert result.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.bed"]


TEXT = """\
track name=x
chrA\t9900\t10100\tedge
chrA\t5\t5\tempty
chrZ\t0\t9\tabsent
chrA\t20000\t20009\toff
chrA\t0\t300\tgood
"""


@pytest.mark.parametrize(("edge", "at_edge"), [("pad", "EDGE"), ("skip", "SKIP_CONTIG_EDGE")])
def test_every_region_keeps_its_row(evaluate: Evaluate, tmp_path: Path, edge: str, at_edge: str) -> None:
    assert evaluate(TEXT + TEXT.splitlines()[-1], "--edge", edge).code == 0
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    found = {(row[3], row[-1]): row for row in rows}
    assert [(row[3], row[-1]) for row in rows] == [
        ("edge", at_edge),
        ("empty", "SKIP_ZERO_LENGTH"),
        ("absent", "SKIP_NO_CONTIG"),
        ("off", "SKIP_OFF_CONTIG"),
        ("good", "OK"),
        ("good", "OK"),
    ]
    assert rows[0][:3] == ["chrA", "9900", "10100"]
    assert rows[4] == rows[5]
    assert 0.5 < float(found["good", "OK"][5]) < 4
    assert all(row[5] == "NA" for (_, status), row in found.items() if status.startswith("SKIP_"))


def test_aliases_on_request(evaluate: Evaluate, tmp_path: Path) -> None:
    result = evaluate("A\t0\t200\n")
    assert "pass --contig-aliases auto to match these names" in result.err
    assert evaluate("A\t0\t200\n", "--contig-aliases", "auto").code == 0
    assert (tmp_path / "out.tsv").read_text().splitlines()[1].endswith("\tOK")


def test_an_empty_record_is_refused_when_it_is_asked_for(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">a\nACGTACGTAA\n>empty\n>b\nACGTTTGA\n")
    bed = tmp_path / "r.bed"
    bed.write_text("a\t0\t5\nempty\t0\t5\n")
    out = tmp_path / "o.tsv"
    result = run_cli("evaluate", "regions", "-r", tmp_path / "g.fa", "-b", bed, "-m", world.pretrained, "-o", out)
    assert result.code == 2
    assert result.err.startswith(f"{bed}:2: end=5: the region passes the end of empty, which has 0 bases; ")
    assert not out.exists()
