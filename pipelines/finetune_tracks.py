"""Train a model of tracks: a value per base, such as coverage, accessibility or conservation, from bigWig files.

Values are read from sequence alone; the model starts from a pretrained one, or from scratch. Validation regions choose
the epoch; figures on them and on the test regions, which are those of what `genomamba predict` writes, are printed
beside those of predicting the training mean everywhere, and kept in provenance.json. A causal model knows what stands
before a base, not what follows it: -m with a masked model, or --architecture.bidirectional true, sees both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from genomamba.data.bed import Edge
from genomamba.model.config import Link, ModelConfig
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import OR_SHIPPED
from genomamba.tasks.config import Device, LoraConfig, OptimizerConfig, Precision


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the tracks stand on", short="-r", reads="file")
    tracks: list[str] = option("bigWig files, each FILE (whose name without its ending is the track's) or NAME=FILE")
    output: str = option("run folder to create", short="-o", writes="run")
    model: str | None = option(
        f"run folder of `pretrain`, {OR_SHIPPED}; from scratch when not given", None, short="-m", reads="model"
    )
    loss: Literal["mse", "poisson"] = option(
        "poisson for counts such as coverage, which are not below 0; mse, squared error, for all else", "mse"
    )
    missing: Literal["skip", "zero"] = option(
        "bases that a file has no value of: not in the loss and the figures, or 0, as in coverage without its zeros",
        "skip",
    )
    regions: str | None = option("BED of the regions to train on; everything when not given", None, reads="file")
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases(" where lengths agree")
    valid: list[str] = option("regions (contig or contig:start-end, 1-based) that choose the epoch", [])
    test: list[str] = option("regions that training and validation never see", [])
    valid_bed: str | None = option("BED of more regions held out for validation", None, reads="file")
    test_bed: str | None = option("BED of more regions never seen", None, reads="file")
    valid_blocks: float = option("share of what is left, in blocks drawn by the seed, for validation", 0.0, at_least=0)
    block_size: int = option("bases per block of --valid-blocks", 100_000, at_least=1)
    method: Literal["full", "head", "lora"] = option("train everything, the head, or low-rank updates", "full")
    window: int = option("bases per training window", 1024, at_least=2)
    epoch_windows: int | None = option(
        "windows per epoch; as many as the training regions are long when not given", None, at_least=1
    )
    both_strands: bool = option(
        "draw half of the windows from the reverse strand; false for a strand's own track", True
    )
    batch_size: int = option("windows per step", 16, at_least=1)
    epochs: int = option("validations, each after --epoch-windows", 10, at_least=1)
    patience: int | None = option("epochs without a better validation before training ends", 3, at_least=1)
    max_minutes: float | None = option("end training after so long", None, at_least=0)
    average: float = option("decay of a running mean of weights, which is then what is kept; 0: none", 0.0, at_least=0)
    dropout: float | None = option(
        "in the blocks of the pretrained model; as it has it when not given", None, at_least=0
    )
    seed: int = common.seed("the head's weights, windows, strands and blocks")
    workers: int = option("loader processes", 0, short="-@", at_least=0)
    device: Device = option("where to train", "auto")
    precision: Precision = option("32-true, or bf16-mixed with fp32 master weights", "32-true")
    rna: bool = option("read U in the reference as T", False)
    force: bool = option("replace an existing run folder", False)
    resume: bool = common.resume_training()
    checkpoint_every: int | None = common.checkpoint_every()
    architecture: ModelConfig = option("of a model from scratch", ModelConfig())
    lora: LoraConfig = option("of --method lora", LoraConfig())
    optimizer: OptimizerConfig = option("AdamW or Muon, and the schedule", OptimizerConfig(lr=1e-3))


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """Options, and groups of them, that this configuration does not read, and what they count with."""
    if config.method != "lora":
        yield "lora", "--method lora"
    if not config.valid_blocks:
        yield "block_size", "--valid-blocks"
    yield from common.other_starts(config.model)


def run(config: Config) -> int:
    from genomamba.pipelines.track_names import named_tracks

    files = named_tracks(config.tracks)  # before what takes seconds to import
    check_options(config)

    from lightning import seed_everything

    from genomamba.model.folder import save_model
    from genomamba.model.sequence_heads import TokenModel
    from genomamba.pipelines.context_baseline import write_regions
    from genomamba.pipelines.fit_tracks import fit
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.pretrain import reference_facts
    from genomamba.pipelines.pretrained_start import check_start, started
    from genomamba.pipelines.printed_tables import print_tables
    from genomamba.pipelines.run_folder import (
        check_free,
        drop_checkpoints,
        is_finished,
        new_run,
        provenance,
        resume_run,
    )
    from genomamba.pipelines.track_input import load_tracks, say_tracks
    from genomamba.pipelines.track_measures import figures_table, measure
    from genomamba.tasks.device import resolve_device
    from genomamba.tasks.stop_signals import InterruptedTraining

    inputs = (config.reference, config.model, config.regions, config.valid_bed, config.test_bed, *files.values())
    if not config.resume:
        check_free(config.output, force=config.force, inputs=inputs)
    check_start(config)
    device = resolve_device(config.device)
    data = load_tracks(config, open_reference(config.reference, rna=config.rna), files)
    say_tracks(data, config.missing)
    tracks = data.facts()  # of the files as they are now
    seed_everything(config.seed, verbose=False)
    link: Link = "log" if config.loss == "poisson" else "identity"
    model, pretrained = started(config, lambda architecture: TokenModel(architecture, list(files), link=link))
    place = (
        nullcontext(resume_run(config.output, config, common.FREE_OF_FINETUNING))
        if config.resume
        else new_run(config.output, config, force=config.force, inputs=inputs, goes_on_after=InterruptedTraining)
    )
    with place as folder:
        if config.resume and is_finished(folder):
            print(f"{folder}: the run is finished", file=sys.stderr)
            return 0
        best, stopped = fit(config, model, data, folder, tracks, pretrained)
        figures = measure(model, data.reader, data.held_out, mean=data.train.mean, window=config.window, device=device)
        facts: dict[str, Any] = {
            "reference": reference_facts(data.reader.reference),
            "tracks": tracks,
            "pretrained": pretrained,
            "method": config.method,
            "loss": config.loss,
            "missing": config.missing,
            "window": config.window,
            "trained_on_bases": data.train.bases,
            "held_out": {name: [str(region) for region in own] for name, own in data.held_out.items()},
            "best": best,
            "figures": figures,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        write_regions(folder, data.train.regions, data.held_out["valid"])
        save_model(model, folder, card=card(config, facts), provenance=provenance(config, **facts))
        if stopped is None:
            drop_checkpoints(folder)
        unit = "mean" if config.loss == "poisson" else "variance"
        print(
            f"{folder}: trained on {data.train.bases:,} bases, chosen after {best['step']:,} steps by a validation "
            f"loss of {best['valid_loss']:.4f}, each track's over its {unit}",
            file=sys.stderr,
        )
    print_tables([figures_table(figures, config.loss)])
    if stopped is not None:
        print(stopped.told, file=sys.stderr)
        return stopped.exit_code
    return 0


def check_options(config: Config) -> None:
    """Raises ConfigError where options do not go together."""
    from genomamba.errors import ConfigError

    if not (config.valid or config.valid_bed or config.valid_blocks):
        raise ConfigError(
            "nothing is held out to choose the epoch by",
            "give --valid CONTIG, --valid-bed, or --valid-blocks 0.1",
            field="valid",
        )
    common.check_below_one(config, "average", "dropout")


def card(config: Config, facts: dict[str, Any]) -> str:
    """The model card."""
    from genomamba.pipelines.track_measures import cells, columns

    made = f"from `{config.model}` ({config.method})" if config.model else "from scratch"
    rows = [columns(config.loss), ("---",) * len(columns(config.loss))]
    rows += [cells(split, figure) for split, own in facts["figures"].items() for figure in own]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    names = ", ".join(f"{name} (`{each['path']}`)" for name, each in facts["tracks"].items())
    missing = "does not count" if config.missing == "skip" else "is 0"
    return f"""# Model of tracks

{facts["parameters"]:,} parameters, trained {made} on {facts["trained_on_bases"]:,} bases, in windows of
{config.window} bases, seed {config.seed}, to predict {names}.
What a file has no value of {missing}.

Figures over all bases that count, of what `genomamba predict` writes; valid chose the epoch:

{lines}

Research use only; it has not been evaluated for clinical use.
"""
