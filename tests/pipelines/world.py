"""A small world to run commands in: a genome, and variants in four genes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class CliResult(NamedTuple):
    code: int
    out: str
    err: str


# What --help and mistakes in paths must do without: on a cold disk each of these takes seconds.
HEAVY = {"torch", "lightning", "numpy", "pysam", "sklearn", "matplotlib", "numba"}

RunCli = Callable[..., CliResult]
Words = tuple[object, ...]


SHARDS = 32  # of what the fixture `scoring` scores
# A BED, and what becomes of each of its lines.
REGIONS = """\
chrA\t100\t160\tfirst\t0\t+
chrA\t5\t5\tempty
chrB\t8990\t9010\tedge
chrZ\t1\t2\tabsent
chrA\t300\t420\tlast\t0\t-
"""
STATUS = ["OK", "SKIP_ZERO_LENGTH", "EDGE", "SKIP_NO_CONTIG", "OK"]

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
