"""Tables of sequences whose class, or value, is their GC content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from world import RunCli

SMALL = (
    "--architecture.d_model 16 --architecture.n_layer 1 --architecture.d_state 4 --batch-size 16 --device cpu".split()
)
QUICK = "--epochs 6 --optimizer.lr 2e-2".split()
CLASSES = {"at": 0.2, "gc": 0.8, "even": 0.5}


def rows(classes: int = 2, *, per_class: int = 40, seed: int = 0) -> list[tuple[str, str, str]]:
    """Sequences of 20 to 60 bases whose class, and value, is their GC content; splits 60:20:20."""
    random = np.random.default_rng(seed)
    made = []
    for name, gc in list(CLASSES.items())[:classes]:
        for number in range(per_class):
            chances = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
            text = "".join(random.choice(list("ACGT"), int(random.integers(20, 61)), p=chances))
            made.append((text, name, ("train", "train", "train", "dev", "test")[number % 5]))
    return made


def gc_share(text: str) -> float:
    return sum(letter in "GC" for letter in text) / len(text)


def write_table(path: Path, made: list[tuple[str, ...]], header: str = "sequence,label,split") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in made)]) + "\n")
    return path


def figures_of(run_cli: RunCli, table: Path, model: Path, out: Path, *words: object) -> dict:
    result = run_cli("evaluate", "sequences", "-i", table, "-m", model, "-o", out, "--device", "cpu", *words)
    assert result.code == 0, result.err
    return json.loads(out.read_text())
