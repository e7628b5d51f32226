"""docs/SCORE.md explains every key, column and status that `score` can write, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from world import RunCli, World

from genomamba.data.variants import Status
from genomamba.data.vcf import VcfReader

PAGE = (Path(__file__).parents[2] / "docs" / "SCORE.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[list[str]]:
    """The words in code type of each row, by cell, of the table with that first column."""
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [re.findall(r"`(\S+?)`", "|".join(row.split(" | ")[:2])) for row in table.splitlines()[2:]]


def test_every_key_and_column_is_explained(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    words = ("score", "-r", world.reference, "-i", world.labelled, "-m", world.classifier, "--distances", "-o")
    for name in ("out.vcf", "out.tsv"):
        result = run_cli(*words, tmp_path / name)
        assert result.code == 0, result.err
    rows = [row[:1] if row[0] == "GENOMAMBA" else row for row in first_cells("key")]
    with VcfReader(world.labelled) as before, VcfReader(tmp_path / "out.vcf") as after:
        added = [line for line in after.header if line not in before.header]
        given = dict(entry.partition("=")[::2] for entry in next(iter(after)).info.split(";"))
    declared = [match[1] for line in added if (match := re.match(r"##INFO=<ID=(\w+)", line))]
    assert [row[0] for row in rows] == declared
    assert given.keys() >= set(declared)
    columns = (tmp_path / "out.tsv").read_text().splitlines()[0].split("\t")
    fixed = re.findall(r"`(\w+)`", PAGE.partition("a row per ALT, with ")[2].partition("columns named here")[0])
    assert sorted([*fixed, *(row[1] for row in rows[1:])]) == sorted(columns)


def test_every_status_is_explained() -> None:
    assert sorted(cells[0] for cells in first_cells("status")) == sorted(Status)
