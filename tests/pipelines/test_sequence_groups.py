"""Sequences that are split by contigs, genes or blocks of the genome, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sequence_tables import QUICK, SMALL, figures_of, rows, write_table
from world import RunCli, write_reference


@pytest.fixture
def placed(tmp_path: Path) -> tuple[object, ...]:
    """-i, -r and --labels of 80 sequences on four contigs, in turn of either class, with genes."""
    contigs = {f"c{number}": "" for number in range(4)}
    bed, table = [], []
    for number, (text, label, _) in enumerate(sorted(rows(), key=lambda row: row[0][::-1])):
        contig = f"c{number % 4}"
        start = len(contigs[contig])
        contigs[contig] += text
        bed.append(f"{contig}\t{start}\t{start + len(text)}\ts{number}\n")
        table.append((f"s{number}", label, f"g{number % 5}"))
    (tmp_path / "s.bed").write_text("".join(bed))
    labels = write_table(tmp_path / "labels.csv", table, "name,label,gene")
    return "-i", tmp_path / "s.bed", "-r", write_reference(tmp_path / "g.fa", contigs), "--labels", labels


def counts(folder: Path) -> dict[str, Any]:
    made = json.loads((folder / "provenance.json").read_text())
    return made["counts"] | {"dropped": made["dropped"]}


def measured(run_cli: RunCli, placed: tuple[Any, ...], folder: Path, out: Path) -> dict[str, Any]:
    return figures_of(run_cli, placed[1], folder, out, *placed[2:])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("contig", "--dev", "c1", "--test", "c3"), {"train": 40, "dev": 20, "test": 20}),
        (("gene", "--dev", "g0", "--test", "g1", "g2"), {"train": 32, "dev": 16, "test": 32}),
    ],
    ids=["contig", "gene"],
)
def test_whole_groups_are_held_out(
    run_cli: RunCli, placed: tuple[Any, ...], tmp_path: Path, words: tuple[str, ...], expected: dict[str, int]
) -> None:
    out = tmp_path / "m"
    result = run_cli("finetune", "sequences", *placed, "-o", out, *SMALL, *QUICK, "--split-by", *words)
    assert result.code == 0, result.err
    assert counts(out) == expected | {"dropped": {}}
    found = measured(run_cli, placed, out, tmp_path / "e.json")
    assert found["sequences"] == expected["test"]
    assert found["overall"]["MCC"][0] > 0.8


def test_what_fine_tuning_has_not_seen_is_measured_whole(
    run_cli: RunCli, placed: tuple[Any, ...], tmp_path: Path
) -> None:
    """Other genes, held-out rows alone, and a table without places, whatever groups the model was split by."""
    out = tmp_path / "m"
    words = "--split-by gene --dev g0 --test g1 g2".split()
    assert run_cli("finetune", "sequences", *placed, "-o", out, *SMALL, *QUICK, *words).code == 0
    lines = [line.split("\t") for line in placed[1].read_text().splitlines()]
    label = dict(line.split(",", 1) for line in placed[5].read_text().splitlines()[1:])
    held_out = [line for line in lines if label[line[3]].endswith(",g1")]
    (tmp_path / "held.bed").write_text("".join("\t".join(line) + "\n" for line in held_out))
    table = write_table(
        tmp_path / "held.csv", [(line[3], *label[line[3]].split(",")) for line in held_out], "name,label,g"
    )
    given = ("-r", placed[3], "--labels", table)
    assert figures_of(run_cli, tmp_path / "held.bed", out, tmp_path / "a.json", *given)["sequences"] == 16
    others = write_table(tmp_path / "others.csv", rows(seed=9))
    assert figures_of(run_cli, others, out, tmp_path / "b.json")["sequences"] == 16  # its column says which are test


def test_the_seed_chooses_blocks(run_cli: RunCli, placed: tuple[Any, ...], tmp_path: Path) -> None:
    words = "--split-by block --block-size 150 --dev-share 0.25 --test-share 0.25 --epochs 1".split()
    made = []
    for seed in (0, 1):
        out = tmp_path / f"m{seed}"
        assert run_cli("finetune", "sequences", *placed, "-o", out, *SMALL, *words, "--seed", seed).code == 0
        made.append(counts(out))
    assert made[0] != made[1]


def test_blocks_share_no_base(run_cli: RunCli, placed: tuple[Any, ...], tmp_path: Path) -> None:
    words = "--split-by block --block-size 150 --dev-share 0.25 --test-share 0.25".split()
    result = run_cli("finetune", "sequences", *placed, "-o", tmp_path / "m", *SMALL, *QUICK, *words)
    assert result.code == 0, result.err
    made = counts(tmp_path / "m")
    edges = made.pop("dropped")["across the edge of two splits' blocks"]
    assert edges > 0
    assert sum(made.values()) + edges == 80
    assert min(made.values()) > 5
    found = measured(run_cli, placed, tmp_path / "m", tmp_path / "e.json")
    assert found["sequences"] == made["test"]
    assert found["left_out"] == {"across the edge of two splits' blocks": edges}


def test_a_table_of_sequences_may_name_genes(run_cli: RunCli, tmp_path: Path) -> None:
    made = [(text, label, f"g{number % 3}") for number, (text, label, _) in enumerate(rows())]
    table = write_table(tmp_path / "t.csv", made, "sequence,label,locus")
    words = ("-i", table, "--columns", "gene=locus", "--split-by", "gene", "--test", "g2")
    result = run_cli("finetune", "sequences", *words, "-o", tmp_path / "m", *SMALL, *QUICK)
    assert result.code == 0, result.err
    assert counts(tmp_path / "m")["test"] == 26
    found = figures_of(run_cli, table, tmp_path / "m", tmp_path / "e.json", "--columns", "gene=locus")
    assert found["sequences"] == 26


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--split-by contig --dev c1 --test c9", ["c9", "no sequence has this contig", "there is c"]),
        ("--split-by gene --dev g1 --test g1", ["g1", "stands in dev too", "give it to one split"]),
        ("--split-by contig --test c0 c1 c2 c3", ["the split is empty", "train"]),
        ("--split-by block --dev c1", ["dev", "--split-by contig or gene"]),
        ("--dev c1", ["dev", "--split-by contig or gene"]),
        ("--split-by contig --test c1 --test-share 0.2", ["test_share", "--split-by block"]),
        ("--split-by contig --test c1 --test-share 0.1", ["test_share", "--split-by block"]),  # the default, typed
        ("--split-by contig --dev c1", ["split_by=contig", "nothing is held out by it", "--test"]),
        ("--split-by gene --test g1 --columns gene=nosuch", ["labels.csv", "nosuch", "there is no such column"]),
    ],
)
def test_groups_that_do_not_fit_are_named(
    run_cli: RunCli, placed: tuple[Any, ...], tmp_path: Path, words: str, named: list[str]
) -> None:
    result = run_cli("finetune", "sequences", *placed, "-o", tmp_path / "m", *SMALL, *QUICK, *words.split())
    assert result.code == 2
    assert all(part in result.err for part in named), result.err
    assert not (tmp_path / "m").exists()


def test_sequences_without_places_have_no_contigs(run_cli: RunCli, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", rows())
    words = ("-i", table, "-o", tmp_path / "m", "--split-by", "contig", "--test", "c1", *SMALL)
    result = run_cli("finetune", "sequences", *words)
    assert result.code == 2
    assert "sequences that no BED places have no contig" in result.err
