"""Saturation mutagenesis of a region under a causal model: shared states beside the naive loops.

Both give log p(alternative) - log p(reference) of the whole region, one strand, fp32. The naive loops read both whole
sequences for each substitution: one substitution at a time, and with as many alternatives side by side as --batch says
and the reference read once. They are timed on --sample substitutions spread over the region, and scaled up to all;
the reuse of states is timed on all of them, and compared with the naive scores of the sample.

    python benchmarks/mutagenesis.py --out benchmarks/results/mutagenesis_h200.json
    python benchmarks/mutagenesis.py --device cpu --length 512 --d-model 32 --layers 2 --sample 24   # on a laptop
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
from made_with import commit

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.scoring.causal_mutagenesis import CausalMutagenesis

Substitution = tuple[int, int]  # place, and id of the base that is put there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=10_000, help="bases of the region")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--sample", type=int, default=512, help="substitutions that the naive loops are timed on")
    parser.add_argument("--batch", type=int, default=64, help="sequences side by side in the batched naive loop")
    parser.add_argument("--rows", type=int, default=192, help="substitutions side by side when states are reused")
    parser.add_argument("--tokens", type=int, help="bases per forward pass when states are reused")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = CausalLM(ModelConfig(d_model=options.d_model, n_layer=options.layers)).to(device).eval()
    ids = np.random.default_rng(0).choice(alphabet.BASES, options.length).astype(np.uint8)
    every = [(place, base) for place in range(len(ids)) for base in alphabet.BASES if base != ids[place]]
    sample = every[:: max(1, len(every) // options.sample)]
    tokens = options.tokens or (1 << 19 if device.type == "cuda" else 1 << 16)
    shared = CausalMutagenesis(model, strands="+", horizon=None, rows=options.rows, tokens=tokens, device=device)
    # Kernels are compiled before anything is timed.
    one_at_a_time(model, ids, sample[:1], device)
    batched(model, ids, sample[: options.batch], options.batch, device)
    shared(ids, len(ids) - options.rows // 3, len(ids))
    single, single_s = timed(lambda: one_at_a_time(model, ids, sample, device), device)
    several, several_s = timed(lambda: batched(model, ids, sample, options.batch, device), device)
    scores, shared_s = timed(lambda: shared(ids, 0, len(ids)), device)
    own = np.array([scores[place, base - alphabet.A] for place, base in sample])
    scale = len(every) / len(sample)
    return {
        "machine": describe(device, options.commit),
        "region": options.length,
        "d_model": options.d_model,
        "layers": options.layers,
        "substitutions": len(every),
        "sample": len(sample),
        "naive_one_at_a_time": {"sample_s": round(single_s, 3), "all_s": round(single_s * scale, 1)},
        "naive_batched": {
            "batch": options.batch,
            "sample_s": round(several_s, 3),
            "all_s": round(several_s * scale, 1),
        },
        "shared_states": {"rows": options.rows, "tokens": tokens, "all_s": round(shared_s, 2)},
        "times_faster_than_one_at_a_time": round(single_s * scale / shared_s, 2),
        "times_faster_than_batched": round(several_s * scale / shared_s, 2),
        "largest_difference": {
            "shared_and_one_at_a_time": float(np.abs(own - single).max()),
            "batched_and_one_at_a_time": float(np.abs(several - single).max()),
        },
        "largest_score": float(np.abs(single).max()),
    }


@torch.inference_mode()
def one_at_a_time(
    model: CausalLM, ids: np.ndarray, substitutions: list[Substitution], device: torch.device
) -> np.ndarray:
    """Two sequences for each."""
    scores = []
    for place, base in substitutions:
        reference = torch.from_numpy(ids)[None].to(device)
        alternative = reference.clone()
        alternative[0, place] = base
        gain = model.log_likelihood(alternative).double() - model.log_likelihood(reference).double()
        scores.append(gain.sum().item())
    return np.array(scores)


@torch.inference_mode()
def batched(
    model: CausalLM, ids: np.ndarray, substitutions: list[Substitution], batch: int, device: torch.device
) -> np.ndarray:
    """Alternatives side by side, the reference once."""
    reference = torch.from_numpy(ids)[None].to(device)
    expected = model.log_likelihood(reference).double()
    scores = []
    for start in range(0, len(substitutions), batch):
        rows = substitutions[start : start + batch]
        alternatives = reference.repeat(len(rows), 1)
        for row, (place, base) in enumerate(rows):
            alternatives[row, place] = base
        scores.append((model.log_likelihood(alternatives).double() - expected).sum(1).cpu().numpy())
    return np.concatenate(scores)


def timed(run: Callable[[], np.ndarray], device: torch.device) -> tuple[np.ndarray, float]:
    """What it returns, and its seconds."""
    synchronise(device)
    start = time.perf_counter()
    result = run()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def describe(device: torch.device, given: str | None) -> dict[str, str | None]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "commit": given or commit(),
    }


if __name__ == "__main__":
    main()
