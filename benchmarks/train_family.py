"""A whole training step of the family's other members on a GPU: both directions, both strands, Mamba-2.

d_model 256, 8 layers, AdamW, bf16 autocast, the loss of the next token or, for models that look ahead, of every
token. Printed for each model and size: million tokens (bases) per second, and the peak of memory.

    python benchmarks/train_family.py --out benchmarks/results/train_family_h200.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from train_step import describe, measure

from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.cuda_graph import MOST_TOKENS

SIZES = [(128, 1024), (1, 131_072), (1, 2**20)]
# Options, and what is asked for at each size: least Mbp/s, or with "GiB" the most memory.
MODELS: dict[str, tuple[dict[str, Any], list[str | None]]] = {
    "bidirectional": ({"bidirectional": True}, ["2.4 Mbp/s", "2.2 Mbp/s", "40 GiB"]),
    "equivariant": ({"bidirectional": True, "rc_equivariant": True}, ["1.2 Mbp/s", "1.1 Mbp/s", None]),
    "mamba2": ({"layers": "mamba2", "d_state": 64, "headdim": 64}, ["3.0 Mbp/s", "3.0 Mbp/s", None]),
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
    rows: list[dict[str, Any]] = []
    for name in options.models:
        fields, asked = MODELS[name]
        config = ModelConfig(d_model=256, n_layer=8, vocab_size=16, **fields)
        for (batch, length), bar in zip(SIZES, asked, strict=True):
            again = False
            short = batch * length <= MOST_TOKENS
            found = measure(lambda: build(config, again), batch, length, graph=short)  # noqa: B023 (called at once)
            rows.append({"model": name, "batch": batch, "length": length, "activation_checkpointing": again})
            rows[-1] |= {"cuda_graph": short}
            rows[-1] |= {"asked": bar, **found}
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(options.commit), "sizes": rows}, indent=1) + "\n")


def build(config: ModelConfig, activation_checkpointing: bool) -> CausalLM | MaskedLM:
    model = CausalLM(config) if config.is_causal else MaskedLM(config)
    model.backbone.activation_checkpointing = activation_checkpointing
    return model


if __name__ == "__main__":
    main()
