"""A copy of what a classifier was trained on is found wherever it lies, on either strand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from world import CliResult, RunCli, World, labelled_records, write_reference, write_vcf

PAIRS = str.maketrans("ACGT", "TGCA")


def turned(sequence: str) -> str:
    return sequence[::-1].translate(PAIRS)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_copies_of_training_windows_are_refused(
    world: World, run_cli: RunCli, genome: dict[str, str], tmp_path: Path, strand: str
) -> None:
    """`copy` holds the gene AAA1, which was trained on; 40 variants in it, and some of those of a gene held out."""
    piece = genome["chrA"][900:3300]
    records = []
    for record in labelled_records(genome):
        contig, pos, name, ref, alt, *rest = record.split("\t")
        if name.startswith("AAA1") and len(alt) == 1:
            at = int(pos) - 1 - 900
            if strand == "-":
                at, ref, alt = len(piece) - 1 - at, turned(ref), turned(alt)
            contig, pos, name = "copy", str(at + 1), f"copy{name}"
            rest[-1] = rest[-1].replace("AAA1", "NEW")
        elif name.startswith("DDD4"):
            rest[-1] = rest[-1].replace("DDD4", "NEW")
        else:
            continue
        records.append("\t".join((contig, pos, name, ref, alt, *rest)))
    more = genome | {"copy": piece if strand == "+" else turned(piece)}
    reference = write_reference(tmp_path / "more.fa", more)
    source = write_vcf(tmp_path / "in.vcf", records, {name: len(sequence) for name, sequence in more.items()})

    def evaluate(model: Path) -> CliResult:
        words = ("-r", reference, "-i", source, "-m", model, "--genes", "NEW", "--device", "cpu")
        return run_cli("evaluate", "variants", *words)

    result = evaluate(world.classifier)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith(
        "genes=NEW: 20 of 60 variants lie in copies, elsewhere or on the other strand, of windows that training or "
        "validation has seen, the first at line "
    )
    older = tmp_path / "older"
    shutil.copytree(world.classifier, older)
    (older / "seen.npy").unlink()
    result = evaluate(older)
    assert result.code == 0, result.err
    assert (
        f"{older} has no seen.npy: whether variants lie in copies of what it was trained on is not known" in result.err
    )


def test_what_is_kept_is_a_hash_of_each_window(world: World) -> None:
    kept = np.load(world.classifier / "seen.npy")
    assert kept.dtype == np.uint64
    assert kept.size == 120  # of train and valid, of which no two read alike
