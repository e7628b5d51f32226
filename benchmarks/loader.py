"""How fast windows of a genome become training batches, beside the usual ways, in one run.

Ids of random windows against pyfaidx and a look-up table; and whole batches (window, strand, weights of masked and
unknown bases, collate) through a DataLoader against a loader of the kind that Caduceus and HyenaDNA train with: a
string from pyfaidx, its reverse complement in Python, a slow tokenizer of Hugging Face. The contenders take turns,
and the fastest round of each counts, since whatever else runs on the machine can only slow one down.

    python benchmarks/loader.py --out benchmarks/results/loader.json

Needs the package's `hf` extra for the tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyfaidx
import torch
import transformers
from made_with import commit
from torch.utils.data import DataLoader, Dataset

from genomamba.data.datamodule import ReferenceWindows
from genomamba.data.reference import Reference
from genomamba.data.references import References
from genomamba.data.windows import whole_contigs
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval

CONTIGS = 4
ASKED = {"ids_1Mb": 20, "ids_1kb": 3, "batches_131kb": 60, "Mbp_per_s_per_worker_131kb": 100}
COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "a": "t", "c": "g", "g": "c", "t": "a"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bases", type=int, default=16_000_000, help=f"of each of the genome's {CONTIGS} contigs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = write_genome(Path(folder) / "genome.fa", options.bases)
        found = measure(path, options.bases, options.rounds)
    found["machine"] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (np, torch, transformers, pyfaidx)},
        "commit": commit(),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def write_genome(path: Path, size: int) -> Path:
    """Random bases in lines of 60, some stretches soft-masked, some N."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for number in range(CONTIGS):
            bases = np.frombuffer(b"ACGT", np.uint8)[random.integers(4, size=size)]
            for start in range(0, size - 2000, 10_000):
                bases[start : start + 2000] |= 32  # lower case
            bases[random.integers(size, size=200)] = ord("N")
            lines = np.full((-(-size // 60), 61), ord("\n"), np.uint8)
            padded = np.full(lines.shape[0] * 60, ord("A"), np.uint8)
            padded[:size] = bases
            lines[:, :60] = padded.reshape(-1, 60)
            file.write(b">chr%d\n" % (number + 1) + lines.tobytes())
    return path


def measure(path: Path, contig: int, rounds: int) -> dict[str, Any]:
    reference = Reference.open(path)
    fasta = pyfaidx.Fasta(str(path), as_raw=True)
    table = alphabet.ENCODING

    def by_lookup(window: Interval) -> np.ndarray:
        return table[np.frombuffer(fasta[window.contig][window.start : window.end].encode(), np.uint8)]

    for window in intervals(1000, 50, contig, seed=9):
        assert np.array_equal(by_lookup(window), reference.ids(window))
    results: dict[str, Any] = {"Mbp_per_s": {}, "ratios": {}, "asked": ASKED}
    for name, size, count in (("ids_1Mb", 1_000_000, 60), ("ids_1kb", 1000, 4000)):
        places = intervals(size, count, contig, seed=1)
        results["Mbp_per_s"][name] = compare(
            rounds, {"genomamba": lambda: consume(map(reference.ids, places)),  # noqa: B023 (called at once)
                     "pyfaidx_lookup": lambda: consume(map(by_lookup, places))},  # noqa: B023
            size * count,
        )  # fmt: skip
        speeds = results["Mbp_per_s"][name]
        results["ratios"][name] = speeds["genomamba"] / speeds["pyfaidx_lookup"]
    for name, size, batch, ours, theirs in (("batches_131kb", 131_072, 2, 200, 2), ("batches_1kb", 1024, 128, 60, 2)):
        usual = DataLoader(UsualWindows(str(path), contig, size), batch_size=batch)
        speeds = compare(
            rounds, {"genomamba": lambda: run_through(loader(path, size, batch, 0), ours),  # noqa: B023
                     "genomamba_1_worker": lambda: run_through(loader(path, size, batch, 1), ours)},  # noqa: B023
            size * batch * ours,
        )  # fmt: skip
        usual_bases = size * batch * theirs
        speeds |= compare(rounds, {"caduceus_path": lambda: run_through(usual, theirs)}, usual_bases)  # noqa: B023
        results["Mbp_per_s"][name] = speeds
        results["ratios"][name] = speeds["genomamba"] / speeds["caduceus_path"]
        results["ratios"][f"{name}_1_worker"] = speeds["genomamba_1_worker"] / speeds["caduceus_path"]
    results["Mbp_per_s_per_worker_131kb"] = results["Mbp_per_s"]["batches_131kb"]["genomamba_1_worker"]
    return results


def compare(rounds: int, contenders: dict[str, Callable[[], float | None]], bases: int) -> dict[str, float]:
    """Mbp/s of each; what returns seconds has measured itself."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            seconds = run()
            best[name] = min(best[name], seconds or time.perf_counter() - began)
    return {name: bases / seconds / 1e6 for name, seconds in best.items()}


def consume(items: Iterator[Any]) -> None:
    for _ in items:
        pass


def intervals(size: int, count: int, contig: int, seed: int) -> list[Interval]:
    random = np.random.default_rng(seed)
    starts = random.integers(contig - size, size=count)
    return [Interval(f"chr{1 + n % CONTIGS}", int(s), int(s) + size) for n, s in enumerate(starts)]


def run_through(batches: DataLoader, count: int) -> float:
    """Seconds for ``count`` batches after the first."""
    iterator = iter(batches)
    next(iterator)
    began = time.perf_counter()
    consume(islice(iterator, count))
    return time.perf_counter() - began


def loader(path: Path, window: int, batch: int, workers: int) -> DataLoader:
    """Ours, as `pretrain` has it."""
    genome = References([Reference.open(path)])
    windows = ReferenceWindows(
        genome,
        whole_contigs(genome),
        [],
        [],
        window=window,
        batch_size=batch,
        micro_batch=batch,
        steps=10_000,
        steps_per_epoch=1000,
        seed=0,
        both_strands=True,
        softmask_weight=0.5,
        max_n=1.0,
        mixture=None,
        pack=True,
        workers=workers,
    )
    return windows.train_dataloader()


# --- the usual path ---


class CharacterTokenizer(transformers.PreTrainedTokenizer):
    """One token per letter, in Python, as genomic models on Hugging Face have it."""

    def __init__(self, **kwargs: Any) -> None:
        self.ids = {token: number for number, token in enumerate(alphabet.TOKENS)}
        super().__init__(pad_token="[PAD]", unk_token="[UNK]", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, alphabet.UNK)

    def _convert_id_to_token(self, index: int) -> str:
        return alphabet.TOKENS[index]


class UsualWindows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random windows: a string, half of them reverse-complemented letter by letter, tokenized; input and target."""

    def __init__(self, path: str, contig: int, window: int) -> None:
        self.fasta, self.contig, self.window = pyfaidx.Fasta(path, sequence_always_upper=True), contig, window
        self.tokenizer = CharacterTokenizer(model_max_length=window)
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = int(self.random.integers(self.contig - self.window))
        sequence = str(self.fasta[f"chr{1 + index % CONTIGS}"][start : start + self.window])
        if self.random.random() < 0.5:
            sequence = "".join(COMPLEMENT.get(base, base) for base in reversed(sequence))
        encoded = self.tokenizer(
            sequence, add_special_tokens=False, padding="max_length", max_length=self.window, truncation=True
        )
        ids = torch.LongTensor(encoded["input_ids"])
        ids = torch.where(ids == alphabet.N, alphabet.PAD, ids)
        return ids[:-1].clone(), ids[1:].clone()


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
