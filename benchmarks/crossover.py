"""From which length on a recurrent layer is cheaper than attention: training, generation and memory against L.

Eight blocks of width 256: Mamba, Mamba-2 and GRU blocks, and attention (flash, through torch's SDPA) with a gated MLP
of 8/3 of the width, which is what a transformer's block has in parameters.
Training: AdamW, bf16 autocast, 131,072 tokens a step, or one window where L is longer. Generation: batch 1, tokens per
second and what the state takes, behind a prompt of L tokens.

    python benchmarks/crossover.py --out benchmarks/results/crossover_h200.json
    python benchmarks/crossover.py --draw benchmarks/results/crossover_h200.json --picture docs/crossover.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_step import describe, measure

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.decoding import leaves
from genomamba.model.recurrence import generate_blocks, prefill
from genomamba.tasks.cuda_graph import MOST_TOKENS

MODELS: dict[str, dict[str, Any]] = {
    "Mamba": {"layers": "mamba"},
    "Mamba-2": {"layers": "mamba2", "d_state": 64, "headdim": 64},
    "attention + MLP": {"layers": "attention", "d_mlp": 680, "headdim": 64},
    "GRU": {"layers": "gru"},
}
TRAINED = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072, 524_288]
GENERATED = [1024, 8192, 65_536]
TOKENS = 131_072
PATIENCE = 3.0  # seconds: a model whose step takes longer is not run at greater lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--draw", type=Path, help="only print the table of these results")
    parser.add_argument("--picture", type=Path, help="with --draw: and write the picture here")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.picture)
        return
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    found: dict[str, Any] = {"machine": describe(options.commit), "training": [], "generation": []}
    for name in options.models:
        for length in TRAINED:
            row = {"model": name, "length": length, **trained(name, length)}
            found["training"].append(row)
            print(json.dumps(row), flush=True)
            if row.get("out_of_memory") or row["step_ms"] > 1e3 * PATIENCE:
                break
        for length in GENERATED:
            row = {"model": name, "length": length, **generated(name, length)}
            found["generation"].append(row)
            print(json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def build(name: str) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(ModelConfig(d_model=256, n_layer=8, vocab_size=12, **MODELS[name]))


def trained(name: str, length: int) -> dict[str, Any]:
    """Memory is that of plain steps; so is the time, unless they can be replayed as graphs, as in `pretrain`."""
    batch = max(1, TOKENS // length)
    row = {"batch": batch, "cuda_graph": False, **measure(lambda: build(name), batch, length)}
    # cuDNN's recurrence allocates as it goes.
    if "step_ms" in row and batch * length <= MOST_TOKENS and name != "GRU":
        again = measure(lambda: build(name), batch, length, graph=True)
        row |= {"cuda_graph": True} | {field: again[field] for field in ("step_ms", "step_Mbp_per_s")}
    return row


def generated(name: str, length: int) -> dict[str, Any]:
    """Of tokens behind a prompt; what reading the prompt takes is not counted."""
    model = build(name).cuda().eval()
    prompt = torch.randint(alphabet.A, alphabet.T + 1, (1, length), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        state: list[Tensor] = leaves(prefill(model, prompt).state)
        held = sum(leaf.numel() * leaf.element_size() for leaf in state)
        del state
        begun = counted = 0
        start = time.perf_counter()
        for block in generate_blocks(model, prompt, 1024):
            torch.cuda.synchronize()
            if not begun:
                begun, start = block.shape[1], time.perf_counter()
            counted += block.shape[1]
    seconds = time.perf_counter() - start
    return {"tokens_per_s": round((counted - begun) / seconds, 1), "state_MiB": round(held / 2**20, 3)}


def draw(found: dict[str, Any], picture: Path | None) -> None:
    """Prints million tokens per second of training and the ratio to attention; plots all three."""
    models = [m for m in MODELS if any(r["model"] == m for r in found["training"])]
    speed = {(r["model"], r["length"]): r.get("step_Mbp_per_s") for r in found["training"]}
    print("| L | " + " | ".join(models) + " |")
    print("|---" * (1 + len(models)) + "|")
    for length in TRAINED:
        base = speed.get(("attention + MLP", length))
        cells = []
        for model in models:
            value = speed.get((model, length))
            ratio = f" ({value / base:.2f} x)" if value and base and model != "attention + MLP" else ""
            cells.append(f"{value:.3g}{ratio}" if value else "")
        print(f"| {length:,} | " + " | ".join(cells) + " |")
    print("\n| behind L | " + " | ".join(models) + " |")
    print("|---" * (1 + len(models)) + "|")
    made = {(r["model"], r["length"]): r for r in found["generation"]}
    for length in GENERATED:
        rows = [made.get((model, length)) for model in models]
        print(
            f"| {length:,} | "
            + " | ".join(f"{r['tokens_per_s']:,.0f}/s, {r['state_MiB']:.3g} MiB" if r else "" for r in rows)
            + " |"
        )
    if picture is None:
        return
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4))
    panels = [
        ("training", "step_Mbp_per_s", "training, million tokens/s"),
        ("training", "peak_GiB", "training, peak GiB"),
        ("generation", "tokens_per_s", "generation, tokens/s"),
    ]
    for axis, (part, field, label) in zip(axes, panels, strict=True):
        for model in models:
            rows = [r for r in found[part] if r["model"] == model and field in r]
            axis.plot([r["length"] for r in rows], [r[field] for r in rows], marker="o", ms=3, label=model)
        axis.set(xscale="log", xlabel="L, tokens", title=label, ylim=(0, 1.08 * axis.dataLim.y1))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
