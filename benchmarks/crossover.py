"""From which length on a recurrent layer is cheaper than attention: training, generation and memory against L.

Eight blocks of width 256: Mamba, Mamba-2 and GRU blocks, and attention (flash, through torch's SDPA) with a gated MLP
of 8/3 of the width, which is what a transformer's block has in parameters.
Training: AdamW, bf16 autocast, 131,072 tokens a step, or one window where L is longer. Generation: batch 1, tokens per
second and what the state takes, behind a prompt of L tokens. On a CPU the same in fp32, 4,096 tokens a step.

    python benchmarks/crossover.py --out benchmarks/results/crossover_h200.json
    python benchmarks/crossover.py --draw benchmarks/results/crossover_h200.json --picture docs/crossover.png
    python benchmarks/crossover.py --device cpu --threads 1 --out benchmarks/results/crossover_cpu.json
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cpu_step import cpu_name, peak_memory
from made_with import commit
from torch import Tensor
from torch.nn import functional as F
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


class Sizes(NamedTuple):
    trained: list[int]  # lengths
    generated: list[int]  # lengths of prompts
    tokens: int  # of a training step, unless one row has more
    made: int  # tokens that are generated
    patience: float  # seconds: a model whose step takes longer is not run at greater lengths


SIZES = {
    "gpu": Sizes(
        [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072, 524_288], [1024, 8192, 65_536], 131_072, 1024, 3.0
    ),
    "cpu": Sizes([256, 512, 1024, 2048, 4096, 8192, 16_384], [256, 1024, 4096], 4096, 512, 20.0),
}
REPEATS = 3  # of a step on a CPU; the fastest counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--device", choices=SIZES, default="gpu")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--draw", type=Path, help="only print the table of these results")
    parser.add_argument("--picture", type=Path, help="with --draw: and write the picture here")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.picture)
        return
    if options.device == "gpu" and not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    torch.set_num_threads(options.threads)
    sizes = SIZES[options.device]
    machine = describe(options.commit) if options.device == "gpu" else describe_cpu(options)
    found: dict[str, Any] = {"machine": machine, "training": [], "generation": []}
    for name in options.models:
        for length in sizes.trained:
            train = trained if options.device == "gpu" else trained_on_cpu
            row = {"model": name, "length": length, **train(name, max(1, sizes.tokens // length), length)}
            found["training"].append(row)
            print(json.dumps(row), flush=True)
            if row.get("out_of_memory") or row["step_ms"] > 1e3 * sizes.patience:
                break
        for length in sizes.generated:
            row = {"model": name, "length": length, **generated(name, length, sizes.made, options.device)}
            found["generation"].append(row)
            print(json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def build(name: str) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(ModelConfig(d_model=256, n_layer=8, vocab_size=12, **MODELS[name]))


def trained(name: str, batch: int, length: int) -> dict[str, Any]:
    """Memory is that of plain steps; so is the time, unless they can be replayed as graphs, as in `pretrain`."""
    row = {"batch": batch, "cuda_graph": False, **measure(lambda: build(name), batch, length)}
    # cuDNN's recurrence allocates as it goes.
    if "step_ms" in row and batch * length <= MOST_TOKENS and name != "GRU":
        again = measure(lambda: build(name), batch, length, graph=True)
        row |= {"cuda_graph": True} | {field: again[field] for field in ("step_ms", "step_Mbp_per_s")}
    return row


def trained_on_cpu(name: str, batch: int, length: int) -> dict[str, Any]:
    """In fp32, in a process of its own, whose memory begins anew."""
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(_trained_on_cpu, name, batch, length, torch.get_num_threads()).result()


def _trained_on_cpu(name: str, batch: int, length: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    model = build(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(ids: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    step(torch.randint(0, 4, (2, 16)))  # compiles
    ids = torch.randint(0, 4, (batch, length))
    peak = peak_memory(lambda: step(ids))
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step(ids)
        took.append(time.perf_counter() - begun)
    seconds = min(took)  # whatever else runs can only slow one down
    speed = batch * length / seconds / 1e6
    return {
        "batch": batch,
        "step_ms": round(1e3 * seconds, 2),
        "step_Mbp_per_s": float(f"{speed:.4g}"),
        "peak_GiB": round(peak / 2**30, 3),
    }


def describe_cpu(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": cpu_name(),
        "threads": options.threads,
        "torch": torch.__version__,
        "commit": options.commit or commit(),
    }


def generated(name: str, length: int, count: int, device: str) -> dict[str, Any]:
    """Of tokens behind a prompt; what reading the prompt takes is not counted."""
    where = "cuda" if device == "gpu" else "cpu"
    model = build(name).to(where).eval()
    prompt = torch.randint(alphabet.A, alphabet.T + 1, (1, length), device=where)
    with torch.autocast(where, torch.bfloat16, enabled=device == "gpu"):
        state: list[Tensor] = leaves(prefill(model, prompt).state)
        held = sum(leaf.numel() * leaf.element_size() for leaf in state)
        del state
        begun = counted = 0
        start = time.perf_counter()
        for block in generate_blocks(model, prompt, count):
            if device == "gpu":
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
    for length in sorted({r["length"] for r in found["training"]}):
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
    for length in sorted({r["length"] for r in found["generation"]}):
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
