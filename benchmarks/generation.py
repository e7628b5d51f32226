"""Generation on a GPU, batch 1: tokens per second, and memory after 1,000 and 100,000 tokens.

d_model 256, 8 layers. Attention with a gated MLP of the same width stands beside; its memory and time per token grow.

    python benchmarks/generation.py --out benchmarks/results/generation_h200.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from train_step import describe

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.recurrence import generate_blocks
from genomamba.model.sampling import Sampling

SAMPLING = Sampling(temperature=0.9, top_k=3, top_p=0.95)
# Options, lengths, and the least tokens per second that are asked for.
MODELS: dict[str, tuple[dict[str, Any], list[int], float | None]] = {
    "mamba": ({"layers": "mamba"}, [1_000, 100_000], 5_000.0),
    "mamba2": ({"layers": "mamba2", "d_state": 64, "headdim": 64}, [1_000, 100_000], None),
    "gru": ({"layers": "gru"}, [1_000, 20_000], None),
    "attention": ({"layers": "attention", "d_mlp": 680}, [1_000, 8_000], None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    rows = []
    for name in options.models:
        fields, lengths, asked = MODELS[name]
        torch.manual_seed(0)
        model = CausalLM(ModelConfig(d_model=256, n_layer=8, vocab_size=12, **fields)).cuda().eval()
        measure(model, 600)  # kernels are compiled
        for length in lengths:
            rows.append({"model": name, "tokens": length, "asked_tokens_per_s": asked, **measure(model, length)})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        found = {"machine": describe(options.commit), "sampling": SAMPLING._asdict(), "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(model: CausalLM, length: int) -> dict[str, float]:
    """The whole call, and from the first block of tokens on, behind prefill and the capture of the graph."""
    prompt = torch.full((1, 16), alphabet.A, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = first = time.perf_counter()
    counted = begun = 0
    for block in generate_blocks(model, prompt, length, SAMPLING, seed=1):
        torch.cuda.synchronize()
        counted += block.shape[1]
        if not begun:
            begun, first = counted, time.perf_counter()
    end = time.perf_counter()
    return {
        "tokens_per_s": round((counted - begun) / (end - first), 1),
        "whole_call_tokens_per_s": round(counted / (end - start), 1),
        "peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20, 3),
    }


if __name__ == "__main__":
    main()
