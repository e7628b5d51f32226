"""Whole contigs through `genomamba likelihood`: peak memory against length, and whether bigWig and evaluate agree.

Each contig is read whole by the model that ships, or by -m, in a process of its own. `peak MiB` is the most memory that
the process ever held; `bigWig` is the mean over the file's values, read by pyBigWig, `evaluate` what `genomamba
evaluate regions --stream` prints of the same contig. Exits with 1 where the two differ by more than the rounding of
what is printed.

    python benchmarks/likelihood.py -r scerevisiae_R64.fa.gz ecoli_MG1655.fa.gz --contigs sc_I sc_XI sc_IV NC_000913.3 \
        --out benchmarks/results/likelihood_cpu.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyBigWig
import torch
from made_with import command

from genomamba.model.pretrained import SHIPPED
from genomamba.pipelines.open_reference import open_reference

PRINTED = 5e-5  # half of the last digit of evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--reference", nargs="+", required=True, help="FASTA, in which contigs are looked for")
    parser.add_argument("--contigs", nargs="+", required=True)
    parser.add_argument("-m", "--model", default=SHIPPED)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # Indexes are made here, not in what is measured.
    found_in = {
        contig: (path, length) for path in options.reference for contig, length in open_reference(path).contigs.items()
    }
    if missing := [contig for contig in options.contigs if contig not in found_in]:
        parser.error(f"no --reference has {', '.join(missing)}")
    rows = []
    for contig in options.contigs:
        rows.append(measured(options, contig, *found_in[contig]))
        print(json.dumps(rows[-1]), flush=True)
    found = {
        "command": command(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": options.model,
        "contigs": rows,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if any(abs(row["bits_per_base_bigWig"] - row["bits_per_base_evaluate"]) > PRINTED for row in rows):
        sys.exit(1)


def measured(options: argparse.Namespace, contig: str, reference: str, length: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bed, bigwig, table = (Path(folder, name) for name in ("contig.bed", "bits.bw", "evaluated.tsv"))
        bed.write_text(f"{contig}\t0\t{length}\n")
        words = ["-r", reference, "-b", str(bed), "-m", options.model, "--device", options.device]
        start = time.perf_counter()
        peak = peak_bytes("likelihood", *words, "-o", str(bigwig))
        seconds = time.perf_counter() - start
        peak_bytes("evaluate", "regions", *words, "--stream", "-o", str(table))
        with table.open(newline="") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        return {
            "contig": contig,
            "bases": length,
            "seconds": round(seconds, 1),
            "peak_MiB": round(peak / 2**20),
            "bits_per_base_bigWig": round(mean_of(bigwig, contig), 6),
            "bits_per_base_evaluate": float(row["bits_per_base"]),
        }


def peak_bytes(*words: str) -> int:
    """Runs a command of genomamba; the most memory that its process held, without those of its children."""
    child = subprocess.Popen([sys.executable, "-m", "genomamba", *words])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"genomamba {words[0]} ended with {child.returncode}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def mean_of(path: Path, contig: str) -> float:
    with pyBigWig.open(str(path)) as file:
        intervals = file.intervals(contig)
    bases = sum(end - start for start, end, _ in intervals)
    return sum((end - start) * value for start, end, value in intervals) / bases


if __name__ == "__main__":
    main()
