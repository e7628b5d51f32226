"""The command line as a function, and a small world to run it in: a genome, labelled variants, trained models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from genomamba.pipelines.cli import main


class CliResult(NamedTuple):
    code: int
    out: str
    err: str


RunCli = Callable[..., CliResult]


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """``run_cli("index", path)`` → exit code, stdout, stderr."""

    def run(*words: object) -> CliResult:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return CliResult(code, *capfd.readouterr())

    return run


GENES = {"AAA1": ("chrA", 1_000), "BBB2": ("chrA", 6_000), "CCC3": ("chrB", 1_000), "DDD4": ("chrB", 5_000)}


class World(NamedTuple):
    """A genome of two contigs, 40 labelled variants in each of four genes, and models trained on them."""

    reference: Path
    labelled: Path
    pretrained: Path
    classifier: Path


def write_reference(path: Path, contigs: dict[str, str]) -> Path:
    lines = [f">{name}\n" + "\n".join(s[i : i + 60] for i in range(0, len(s), 60)) for name, s in contigs.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_vcf(path: Path, records: list[str], contigs: dict[str, int]) -> Path:
    header = ["##fileformat=VCFv4.2", *(f"##contig=<ID={name},length={size}>" for name, size in contigs.items())]
    header += [
        '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="Clinical significance">',
        '##INFO=<ID=GENEINFO,Number=1,Type=String,Description="Gene">',
        '##INFO=<ID=MC,Number=.,Type=String,Description="Molecular consequence">',
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]
    path.write_text("\n".join([*header, *records]) + "\n")
    return path


def labelled_records(contigs: dict[str, str], *, seed: int = 1) -> list[str]:
    """Pathogenic variants write TATA, benign ones a single other base."""
    random = np.random.default_rng(seed)
    records = []
    for gene, (contig, start) in GENES.items():
        for number in range(40):
            at = start + 50 * number + int(random.integers(20))
            ref = contigs[contig][at]
            pathogenic = number % 2 == 0
            alt = ref + "TATA" if pathogenic else next(b for b in "ACGT" if b != ref)
            label = "Pathogenic" if pathogenic else "Benign"
            consequence = "SO:0001583|missense_variant" if number % 4 < 2 else "SO:0001627|intron_variant"
            info = f"CLNSIG={label};GENEINFO={gene}:1;MC={consequence}"
            records.append(f"{contig}\t{at + 1}\t{gene}_{number}\t{ref}\t{alt}\t.\t.\t{info}")
    return records


@pytest.fixture(scope="session")
def genome() -> dict[str, str]:
    random = np.random.default_rng(0)
    return {name: "".join(random.choice(list("ACGT"), size)) for name, size in (("chrA", 10_000), ("chrB", 9_000))}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> World:
    folder = tmp_path_factory.mktemp("world")
    reference = write_reference(folder / "genome.fa", genome)
    sizes = {name: len(sequence) for name, sequence in genome.items()}
    labelled = write_vcf(folder / "labelled.vcf", labelled_records(genome), sizes)
    made = World(reference, labelled, folder / "pretrained", folder / "classifier")
    common = ("-r", str(reference), "-o")
    small = "--model.d_model 16 --model.n_layer 2 --model.d_state 4"
    sizes_of_run = "--window 128 --batch-size 4 --steps 12 --validate-every 6"
    pretraining = [*common, str(made.pretrained), "--valid", "chrB:1-900", *small.split(), *sizes_of_run.split()]
    assert main(["pretrain", *pretraining]) == 0
    splits = "--train AAA1 BBB2 --valid CCC3 --test DDD4 --window 64 --batch-size 8 --epochs 2"
    given = [*common, str(made.classifier), "-i", str(labelled), "-m", str(made.pretrained)]
    assert main(["finetune", "variants", *given, *splits.split()]) == 0
    return made
