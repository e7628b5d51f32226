"""The index under stress: many processes at once, handles that live through a fork, and files whose times lie.

Rounds in which eight processes open one FASTA of 60,000 contigs that has no index yet, each checking every contig; a
handle opened before four loader workers are forked, and what 12,000 fetches through them give; and a FASTA changed
under its index in ways that size and times hide. Prints one line per part and exits with 1 when anything was wrong.

    python benchmarks/index_races.py --out benchmarks/results/index_races.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from made_with import commit
from torch.utils.data import DataLoader, Dataset

from genomamba.data.index import build_index
from genomamba.data.reference import Reference
from genomamba.genome.interval import Interval

CHILD = """
import sys
from genomamba.data.reference import Reference
from genomamba.genome.interval import Interval
reference = Reference.open(sys.argv[1])
assert len(reference.contigs) == int(sys.argv[2])
for i, (name, length) in enumerate(reference.contigs.items()):
    found = reference.fetch(Interval(name, 0, length)).tobytes().decode()
    assert found == ("ACGT"[i % 4] + "ACGT"[i // 4 % 4]) * (1 + i % 50), name
print("right")
"""


def at_once(folder: Path, contigs: int, processes: int, rounds: int) -> int:
    """How many processes were right."""
    path = folder / "many.fa"
    units = ["ACGT"[i % 4] + "ACGT"[i // 4 % 4] for i in range(contigs)]
    path.write_text("".join(f">c{i}\n{unit * (1 + i % 50)}\n" for i, unit in enumerate(units)))
    right = 0
    for number in range(rounds):
        for index in folder.glob("many.fa.gmi"):
            index.unlink()
        command = [sys.executable, "-c", CHILD, str(path), str(contigs)]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        said = [child.communicate()[0] for child in children]
        right += said.count("right\n")
        leftovers = sorted(file.name for file in folder.iterdir() if file.name not in ("many.fa", "many.fa.gmi"))
        if leftovers:
            raise SystemExit(f"left behind: {leftovers}")
        print(f"round {number + 1}: {said.count('right' + chr(10))} of {processes} right", flush=True)
    return right


class Fetches(Dataset[bool]):
    """Whether random stretches read through one handle are what was written."""

    def __init__(self, reference: Reference, written: dict[str, bytes], count: int) -> None:
        self.reference, self.written, self.count = reference, written, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bool:
        dice = random.Random(index)
        contig = dice.choice(list(self.written))
        start = dice.randrange(len(self.written[contig]))
        end = min(len(self.written[contig]), start + dice.randrange(1, 500))
        return self.reference.fetch(Interval(contig, start, end)).tobytes() == self.written[contig][start:end]


def after_fork(folder: Path, fetches: int) -> int:
    """How many fetches through workers were wrong."""
    dice = np.random.default_rng(0)
    written = {f"c{n}": dice.choice(list(b"ACGTacgtN"), 200_000).astype(np.uint8).tobytes() for n in range(4)}
    path = folder / "forked.fa"
    path.write_bytes(b"".join(b">%s\n%s\n" % (name.encode(), bases) for name, bases in written.items()))
    reference = Reference.open(path)
    reference.fetch(Interval("c0", 0, 10))  # the handle is open before the workers are
    loader = DataLoader(Fetches(reference, written, fetches), batch_size=100, num_workers=4)
    return sum(int((~batch).sum()) for batch in loader)


def stale(folder: Path, rounds: int) -> int:
    """How often a changed FASTA was read as it was before."""
    wrong = 0
    for number in range(rounds):
        path = folder / f"stale{number}.fa"
        path.write_bytes(b">c\n" + b"ACGT" * 500 + b"\n")
        build_index(path)
        times = path.stat()
        if number % 2:
            path.write_bytes(b">c\n" + b"TTGA" * 500 + b"\n")  # in place, of the same size
        else:
            other = folder / "other.fa"
            other.write_bytes(b">c\n" + b"TTGA" * 500 + b"\n")
            os.replace(other, path)
        offset = (0, -(10**12), 10**12)[number % 3]  # its old time, an older one, one in the future
        os.utime(path, ns=(times.st_atime_ns + offset, times.st_mtime_ns + offset))
        wrong += Reference.open(path).fetch(Interval("c", 0, 4)).tobytes() != b"TTGA"
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contigs", type=int, default=60_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--fetches", type=int, default=12_000)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong_fetches = after_fork(folder, options.fetches)
        print(f"a handle opened before fork: {wrong_fetches} of {options.fetches} fetches wrong", flush=True)
        wrong_stale = stale(folder, 60)
        print(f"files changed under their index: {wrong_stale} of 60 read as before", flush=True)
        apart = folder / "at_once"
        apart.mkdir()
        right = at_once(apart, options.contigs, options.processes, options.rounds)
    asked = options.processes * options.rounds
    print(f"{right} of {asked} processes right")
    found = {
        "commit": commit(),
        "contigs": options.contigs,
        "processes_right": [right, asked],
        "fetches_wrong_after_fork": [wrong_fetches, options.fetches],
        "stale_read": [wrong_stale, 60],
    }
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return int(right != asked or wrong_fetches > 0 or wrong_stale > 0)


if __name__ == "__main__":
    sys.exit(main())
