"""Draw sequences from a causal language model, as FASTA.

Each record is the prompt and what was added to it. Without a prompt a sequence begins with a base drawn evenly, since
models are trained on sequences that begin anywhere. The same seed and options give the same sequences on one device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import torch

    from genomamba.model.backbone import CausalLM

AT_ONCE = 64  # sequences side by side; rows share a generator, so that another number gives other sequences
LINE = 60
FASTA = tuple(f".{name}{packed}" for name in ("fa", "fasta", "fna") for packed in ("", ".gz"))


@dataclass(frozen=True)
class Config:
    model: str = common.any_model_or_shipped("causal language model")
    output: str = option(
        "FASTA to write, by bgzip if .fa.gz; - is stdout", "-", short="-o", writes="file", stdout=True, formats=FASTA
    )
    count: int = option("sequences", 1, short="-n", at_least=1)
    length: int = option("bases to add to the prompt", 1000, short="-l", at_least=1)
    prompt: str | None = option("bases that every sequence begins with", None)
    temperature: float = option("below 1 the likely becomes likelier; 0 takes the likeliest base", 1.0, at_least=0)
    top_k: int | None = option("draw from that many likeliest bases", None, at_least=1)
    top_p: float = option("draw from the fewest likeliest bases whose probabilities sum to this", 1.0, at_least=0)
    seed: int = common.seed("what is drawn")
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.data.tracks import write_text
    from genomamba.errors import CheckpointError, ConfigError
    from genomamba.files import refuse_existing
    from genomamba.interop.loading import load_any_model
    from genomamba.model.backbone import CausalLM
    from genomamba.tasks.device import resolve_device

    if not 0 < config.top_p <= 1:
        raise ConfigError("it must lie in (0, 1]", "change it", field="top_p", value=config.top_p)
    if config.prompt is not None and (not config.prompt or set(config.prompt.upper()) - set("ACGT")):
        raise ConfigError("it must be bases", "write A, C, G and T", field="prompt", value=config.prompt)
    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    config = replace(config, model=model_folder(config.model))
    model = load_any_model(config.model)
    if not isinstance(model, CausalLM):
        raise CheckpointError(
            "it is no causal language model, so it draws nothing",
            "give a run folder of `pretrain --objective causal`, or -m shipped",
            file=config.model,
        )
    write_text(config.output, fasta(config, model.to(device), device))
    if config.output == "-":
        return 0
    print(f"{config.output}: {config.count:,} sequences", file=sys.stderr)
    return 0


def fasta(config: Config, model: CausalLM, device: torch.device) -> Iterator[str]:
    """One record at a time."""
    import numpy as np
    import torch

    from genomamba.genome import alphabet
    from genomamba.model.recurrence import generate
    from genomamba.model.sampling import Sampling
    from genomamba.progress import progress_bar

    sampling = Sampling(config.temperature, config.top_k, config.top_p)
    random = np.random.Generator(np.random.Philox(key=config.seed))
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=config.count, note="sequences")
        for start in range(0, config.count, AT_ONCE):
            rows = min(AT_ONCE, config.count - start)
            if config.prompt is None:
                prompt = random.choice(alphabet.BASES, (rows, 1))
            else:
                prompt = np.tile(alphabet.encode(config.prompt), (rows, 1))
            ids = torch.from_numpy(prompt.astype(np.int64)).to(device)
            added = generate(model, ids, config.length, sampling, seed=int(random.integers(1 << 62)))
            for number, row in enumerate(torch.cat([ids, added], 1).cpu().numpy().astype(np.uint8), start + 1):
                letters = alphabet.decode(row)
                lines = [letters[at : at + LINE] for at in range(0, len(letters), LINE)]
                yield "\n".join([f">sequence_{number} prompt={prompt.shape[1]} seed={config.seed}", *lines, ""])
                bar.advance(task)
