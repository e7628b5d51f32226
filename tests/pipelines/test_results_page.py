"""The page of results has the figures that commands left behind, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import RunCli, World

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "results_page.py"
PEERS = {
    "about": "Others.",
    "columns": ["valid", "first"],
    "sources": {"paper": "a paper", "program": "a program"},
    "trained": [{"name": "theirs", "source": "paper", "seconds": 5, "bits": [1.75, 1.875]}],
    "counted": [{"name": "zip", "source": "program", "bits": [None, 1.625]}],
}


def call(*words: object) -> None:
    done = subprocess.run([sys.executable, PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_figures_go_from_run_and_table_to_the_page(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    bed, table = tmp_path / "held.bed", tmp_path / "held.tsv"
    bed.write_text("chrB\t0\t300\tfirst\nchrB\t300\t900\tfirst\nchrB\t1000\t1500\n")
    words = ("-r", world.reference, "-b", bed, "-m", world.pretrained, "--context-model", "-o", table)
    assert run_cli("evaluate", "regions", *words).code == 0
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    order = rows[0][7].split("_")[1]
    results = tmp_path / "results"
    results.mkdir()
    (results / "clinvar_small.md").write_text("| AUROC |\n")
    (results / "quality_peers.json").write_text(json.dumps(PEERS))
    call("collect", "--run", f"small={world.pretrained}", "--evaluation", f"small/in windows={table}", "--out",
         results / "quality_cpu.json", "--commit", "abc")  # fmt: skip
    call("page", "--results", results, "--out", tmp_path / "results.md")
    assert (tmp_path / "quality_cpu.png").stat().st_size > 5_000
    page = (tmp_path / "results.md").read_text()
    lines = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in page.splitlines() if "|" in line)}
    header = [cell.strip() for cell in lines[""]]

    def figure(row: str, column: str) -> float:
        return float(lines[row][header.index(column)])

    def pooled(column: int) -> float:
        (a, x), (b, y) = ((int(row[4]), float(row[column])) for row in rows[1:3])
        return round((a * x + b * y) / (a + b), 4)

    assert figure("**small**, in windows", "first") == pooled(5)
    assert figure("**small**, in windows", "chrB") == float(rows[3][5])
    assert figure(f"order {order} context model, frozen", "first") == pooled(7)
    last = (world.pretrained / "validation.tsv").read_text().splitlines()[-1].split("\t")
    assert last[1:3] == ["*", "all"]
    assert figure("**small**, in windows", "valid") == round(float(last[4]), 4)
    assert (figure("theirs", "first"), figure("zip", "first")) == (1.875, 1.625)
    assert "typed by hand from:\n\n- theirs: a paper.\n- zip: a program.\n" in page
    assert "  n_layer: 2\n" in page
    assert "12 steps" in page
    assert "(commit abc)" in page
    assert page.endswith("## Variants\n\n| AUROC |\n")


def test_context_models_of_other_training_regions_have_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import results_page

    def run(name: str, counted: str, **tables: dict[str, float]) -> dict[str, Any]:
        found = {how: {at: {"order_9_frozen": bits} for at, bits in table.items()} for how, table in tables.items()}
        return {"name": name, "training_regions": counted, "evaluations": found}

    row = "order 9 context model, frozen"
    one = run("one", "A", windows={"x": 1.5}, streamed={"x": 1.5, "y": 1.25})
    assert results_page.context_models([one]) == {row: {"x": 1.5, "y": 1.25}}
    rest = [run("two", "B", windows={"x": 1.75}), run("three", "C", windows={"z": 1.5}), run("four", "A", w={"x": 1})]
    assert results_page.context_models([one, *rest]) == {
        f"{row} (beside one, windows)": {"x": 1.5, "y": 1.25},
        f"{row} (beside two, windows)": {"x": 1.75},
        f"{row} (beside three, windows)": {"z": 1.5},
        f"{row} (beside four, w)": {"x": 1},
    }
