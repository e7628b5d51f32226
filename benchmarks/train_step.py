"""A whole training step of the causal language model on a GPU, and its forward pass alone.

AdamW, bf16 autocast, the loss of the next token. Printed for each size: million tokens (bases) per second,
and the peak of memory; for short windows also with loss and gradient replayed as CUDA graphs, as `genomamba
pretrain` does. Where mamba_ssm can be imported, the same model of theirs runs beside ours.

    python benchmarks/train_step.py --out benchmarks/results/train_step_h200.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from made_with import commit
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.cuda_graph import MOST_TOKENS, GraphedLoss

# d_model, layers, batch, length, activation checkpointing, least Mbp/s of a step, most GiB, least Mbp/s forward.
SIZES = [
    (256, 8, 1, 2**20, False, 3.6, 26.0, 15.0),
    (256, 8, 1, 2**20, True, 2.7, 10.0, None),
    (256, 8, 128, 1024, False, 4.2, None, 15.0),
    (128, 4, 128, 1024, False, 13.0, None, None),
    (128, 4, 1, 2**20, False, None, None, None),
    (256, 8, 1, 2**23, True, None, None, None),  # the longest context asked for
    (256, 8, 1, 3 * 2**22, True, None, None, None),
]
VOCABULARY = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--rows", type=int, nargs="+", help="only these sizes, from 0")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing measured")
        return
    rows: list[dict[str, Any]] = []
    for number in options.rows or range(len(SIZES)):
        width, layers, batch, length, again, *bars = SIZES[number]
        row: dict[str, Any] = {"d_model": width, "layers": layers, "batch": batch, "length": length}
        row |= {"activation_checkpointing": again, "asked": bars}
        row["genomamba"] = measure(lambda: ours(width, layers, again), batch, length)  # noqa: B023 (called at once)
        if batch * length <= MOST_TOKENS:
            row["genomamba_graphed"] = measure(lambda: ours(width, layers, again), batch, length, graph=True)  # noqa: B023
        if importlib.util.find_spec("mamba_ssm") is not None and not again:
            row["mamba_ssm"] = measure(lambda: theirs(width, layers), batch, length)  # noqa: B023
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.out:
        found = {"machine": describe(options.commit), "sizes": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def ours(width: int, layers: int, activation_checkpointing: bool) -> nn.Module:
    model = CausalLM(ModelConfig(d_model=width, n_layer=layers, vocab_size=VOCABULARY))
    model.backbone.activation_checkpointing = activation_checkpointing
    return model


def theirs(width: int, layers: int) -> nn.Module:
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = MambaLMHeadModel(MambaConfig(d_model=width, n_layer=layers, vocab_size=VOCABULARY))

        def forward(self, ids: Tensor) -> Tensor:
            return self.model(ids).logits

    return Logits()


def measure(make: Callable[[], nn.Module], batch: int, length: int, *, graph: bool = False) -> dict[str, Any]:
    torch.manual_seed(0)
    model = make().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, 4, (batch, length), device="cuda")

    weight = torch.ones(batch, length - 1, device="cuda") / (batch * (length - 1))

    def loss_of(ids: Tensor, weight: Tensor) -> Tensor:
        each = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (each.view_as(weight) * weight).sum()

    loss: Callable[[Tensor, Tensor], Tensor] = GraphedLoss(loss_of, model) if graph else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(ids, weight)
        value.backward()
        optimizer.step()

    def score() -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(times):  # one after the other, as batches come
                model(ids)

    times = 5 if batch * length <= 2**20 else 1
    try:
        step()
        torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(step, times)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    peak = torch.cuda.max_memory_allocated() / 2**30
    score()
    forward = median_seconds(score, times) / times
    tokens = batch * length / 1e6
    return {
        "step_ms": round(1e3 * seconds, 2),
        "step_Mbp_per_s": round(tokens / seconds, 3),
        "peak_GiB": round(peak, 2),
        "forward_Mbp_per_s": round(tokens / forward, 3),
    }


def median_seconds(run: Callable[[], None], repeats: int = 5) -> float:
    """The median of some runs, each timed by events around it."""
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2]


def describe(given: str | None) -> dict[str, str | None]:
    import triton

    versions = {"torch": torch.__version__, "triton": triton.__version__, "cuda": str(torch.version.cuda)}
    return {"device": torch.cuda.get_device_name(), **versions, "commit": given or commit()}


if __name__ == "__main__":
    main()
