"""How fast variants are scored, and what is gained by reading once what alleles share.

A causal model with random weights scores synthetic SNVs on a random genome, through `VariantScorer` from reading the
genome to Python floats:

- `plain`: every allele on both strands from the start of its window, 4 rows a variant;
- `reused`: the state before the change serves both alleles;
- `reused, shared windows`: windows' middles on a grid besides, so that neighbours share their reference too; as
  `score` does by default.

The SNVs are `scattered` (no two windows overlap), a `panel` (one in 31 bases, as ClinVar's records stand in BRCA1 and
its like), or `saturation` (all three changes of consecutive bases). `forward` is the model alone on whole windows that
already lie on the device; a path's `fraction of forward` is its tokens per second over those of `forward`. Gains are
variants per second over those of `plain`. Scores of all paths are compared; those of shared windows with the plain path
on the same windows.

    python benchmarks/scoring.py --out benchmarks/results/scoring.json          # on a GPU: d_model 256, 8 layers, 8,192
    python benchmarks/scoring.py --device cpu --d-model 64 --layers 2 --window 1024 --variants 96
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genomamba.data.pairs import read_window
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant
from genomamba.kernels.impl import resolve_impl
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.scoring.batching import batches
from genomamba.scoring.causal_alleles import lay_out
from genomamba.scoring.variants import VariantScorer, shared_step

PANEL_SPACING = 31


class RandomGenome:
    """As much of `Reference` as scoring asks for."""

    def __init__(self, bases: int) -> None:
        self.contigs = {"chr": bases}
        self._ids = np.random.default_rng(0).integers(alphabet.A, alphabet.T + 1, bases).astype(np.uint8)

    def ids(self, interval: Interval) -> np.ndarray:
        return self._ids[interval.start : interval.end].copy()

    def sequence(self, contig: str, start: int, end: int) -> str:
        return alphabet.decode(self._ids[start:end])


def snvs(genome: RandomGenome, kind: str, count: int, window: int) -> list[Variant]:
    spacing = {"scattered": window, "panel": PANEL_SPACING, "saturation": 1}[kind]
    alts = 3 if kind == "saturation" else 1
    found = []
    for number in range(-(-count // alts)):
        start = window + number * spacing
        ref = genome.sequence("chr", start, start + 1)
        found += [Variant("chr", start, ref, alt) for alt in [b for b in "ACGT" if b != ref][:alts]]
    return found[:count]


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Of the second run: the first one compiles."""
    result = None
    for _ in range(2):
        begun = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begun
    return took, result


def tokens(genome: Any, variants: list[Variant], scorer: VariantScorer, *, share: bool) -> int:
    """That the model reads, padding included."""
    windows = [read_window(genome, v, scorer.window, scorer.step) for v in variants]
    total = 0
    for start in range(0, len(windows), 16 * scorer.batch_size):
        some = windows[start : start + 16 * scorer.batch_size]
        for places in batches(some, scorer.batch_size):
            rows = lay_out([some[place] for place in places], share=share, before=1)
            total += rows.prefix.numel() + rows.suffix.numel()
    return total


def forward_tokens_per_second(model: CausalLM, window: int, rows: int, passes: int, device: torch.device) -> float:
    ids = torch.randint(alphabet.A, alphabet.T + 1, (rows, window), dtype=torch.uint8, device=device)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(passes):
            model(ids)

    return rows * window * passes / seconds(work, device)[0]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(d_model=options.d_model, n_layer=options.layers)).to(device).eval()
    window, count = options.window, options.variants
    genome: Any = RandomGenome((count + 3) * window)
    common: dict[str, Any] = {"window": window, "batch_size": options.batch_size, "device": device}
    planned = VariantScorer(model, genome, **common).batch_size
    common["batch_size"] = batch = min(planned, count)
    speed = forward_tokens_per_second(model, window, 4 * batch, max(1, count // batch), device)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "impl": resolve_impl("auto", device),
        "threads": torch.get_num_threads(),
        "d_model": options.d_model,
        "layers": options.layers,
        "window": window,
        "variants": count,
        "batch_size": batch,
        "forward_tokens_per_second": speed,
        "forward_variants_per_second": speed / (4 * window),
        "cases": [],
    }
    print(
        f"{report['device']}: forward {speed / 1e6:.3f} Mbp/s, {report['forward_variants_per_second']:.1f} variants/s"
    )
    for kind in ("scattered", "panel", "saturation"):
        variants = snvs(genome, kind, count, window)
        plain_speed = 0.0
        for name, share, step in (
            ("plain", False, 1),
            ("reused", True, 1),
            ("reused, shared windows", True, shared_step(model, window)),
        ):
            if kind == "scattered" and step > 1:
                continue  # no two have a window in common
            scorer = VariantScorer(model, genome, step=step, reuse_state=share, **common)
            took, scores = seconds(lambda scorer=scorer, variants=variants: list(scorer(variants)), device)
            exact = VariantScorer(model, genome, step=step, reuse_state=False, **common)
            compared = variants[: min(count, 2 * batch)]
            off = max(abs(a.llr - b.llr) for a, b in zip(scores, exact(compared), strict=False))
            plain_speed = plain_speed or count / took
            case = {
                "variants": kind,
                "path": name,
                "variants_per_second": count / took,
                "fraction_of_forward": tokens(genome, variants, scorer, share=share) / took / speed,
                "gain": count / took / plain_speed,
                "largest_difference_from_plain_nats": off,
                "largest_llr": max(abs(score.llr) for score in scores),
            }
            report["cases"].append(case)
            print(
                f"{kind:<11}{name:<24}{case['variants_per_second']:>9.2f} variants/s, "
                f"{100 * case['fraction_of_forward']:.0f} % of forward, gain {case['gain']:.2f}, off by {off:.1e} nats",
                flush=True,
            )
    if device.type == "cuda":
        report["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "gpu" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "gpu"), default=default)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--variants", type=int, default=512)
    parser.add_argument("--batch-size", type=int, help="planned when not given")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args()
    report = measure(options)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
