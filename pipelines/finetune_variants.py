"""Train a variant classifier from labelled variants, starting from a pretrained model, or from scratch.

Splits are by gene, contig, block of the genome or a column, so that no figure comes from a group that training has
seen. The validation split chooses the epoch, the calibration and the threshold; the test split is only checked for
leaks here, and measured by `genomamba evaluate variants`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genomamba.model.config import ModelConfig, VariantHeadConfig
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import OR_SHIPPED
from genomamba.tasks.config import Device, LoraConfig, Method, OptimizerConfig, Precision, ProbeConfig

if TYPE_CHECKING:
    from genomamba.model.heads import VariantClassifier


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r", reads="file")
    input: str = option(
        "labelled VCF, or a CSV, TSV or Parquet with chrom, pos, ref, alt, label", short="-i", reads="file"
    )
    output: str = option("run folder to create", short="-o", writes="run")
    model: str | None = option(
        f"run folder of `pretrain`, {OR_SHIPPED}; from scratch when not given", None, short="-m", reads="model"
    )
    label: str | None = option("INFO key or column of the label; CLNSIG in a VCF, label in a table", None)
    labels: str | None = option(
        "file of VALUE, tab, 0 or 1: what its values mean, if not ClinVar's words", None, reads="file"
    )
    train: list[str] = option("genes (or contigs, or values of the split column) to train on", [])
    valid: list[str] = option("those that choose epoch, calibration and threshold", [])
    test: list[str] = option("those held out for evaluate", [])
    split_by: Literal["gene", "contig", "block", "column"] = option("what splits do not share", "gene")
    split_column: str = option("INFO key or column of --split-by column", "split")
    block_size: int = option("bases of a block of --split-by block", 1_000_000, at_least=1)
    valid_share: float = option("of blocks, for validation", 0.1, at_least=0)
    test_share: float = option("of blocks, held out for evaluate", 0.1, at_least=0)
    method: Method = option("train everything, the head, low-rank updates, or a probe of frozen features", "full")
    class_weights: Literal["none", "balanced"] = option("balanced: each class counts alike in training", "balanced")
    window: int = option("bases of context around each variant", 256, at_least=2)
    batch_size: int = option("variants per step", 32, at_least=1)
    epochs: int = option("passes over the training variants", 3, at_least=1)
    patience: int | None = option("epochs without a better validation before training ends", None, at_least=1)
    max_minutes: float | None = option("end training after so long", None, at_least=0)
    contig_aliases: common.ContigAliases = common.contig_aliases(" where lengths agree")
    max_mismatch_frac: float = common.max_mismatch_frac()
    seed: int = common.seed("the head's weights, order, strands and blocks")
    workers: int = option("loader processes", 0, short="-@", at_least=0)
    device: Device = option("where to train", "auto")
    precision: Precision = option("32-true, or bf16-mixed with fp32 master weights", "32-true")
    rna: bool = option("read U in the reference as T", False)
    force: bool = option("replace an existing run folder", False)
    resume: bool = common.resume_training()
    checkpoint_every: int | None = common.checkpoint_every()
    head: VariantHeadConfig = option("the head; a probe has no hidden layer", VariantHeadConfig())
    architecture: ModelConfig = option("of a model from scratch", ModelConfig())
    lora: LoraConfig = option("of --method lora", LoraConfig())
    probe: ProbeConfig = option("of --method probe", ProbeConfig())
    optimizer: OptimizerConfig = option("AdamW or Muon, and the schedule", OptimizerConfig(lr=1e-3))


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """Options, and groups of them, that this configuration does not read, and what they count with."""
    yield from common.other_methods(config.method)
    if config.method == "probe":  # which is not trained in steps
        for name in ("resume", "checkpoint_every"):
            yield name, "--method full, head or lora"
    if config.split_by != "column":
        yield "split_column", "--split-by column"
    if config.split_by != "block":
        for name in ("block_size", "valid_share", "test_share"):
            yield name, "--split-by block"


def run(config: Config) -> int:
    import numpy as np
    from lightning import seed_everything

    from genomamba.data.label_splits import window_keys
    from genomamba.model.folder import save_model
    from genomamba.pipelines.fit_variants import fit, fit_frozen
    from genomamba.pipelines.labelled import load_splits, seen_regions
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.pretrain import reference_facts
    from genomamba.pipelines.pretrained_start import check_start
    from genomamba.pipelines.run_folder import (
        check_free,
        drop_checkpoints,
        is_finished,
        new_run,
        provenance,
        resume_run,
    )
    from genomamba.pipelines.seen import save_seen
    from genomamba.scoring.metrics import consequence_shares
    from genomamba.tasks.device import resolve_device
    from genomamba.tasks.stop_signals import InterruptedTraining

    inputs = (config.reference, config.input, config.model, config.labels)
    if not config.resume:
        check_free(config.output, force=config.force, inputs=inputs)
    check_start(config)
    device = resolve_device(config.device)
    reference = open_reference(config.reference, rna=config.rna)
    splits = load_splits(config, reference)
    seed_everything(config.seed, verbose=False)
    model, pretrained = make_model(config)
    items = splits.items
    place = (
        nullcontext(resume_run(config.output, config, common.FREE_OF_FINETUNING))
        if config.resume
        else new_run(config.output, config, force=config.force, inputs=inputs, goes_on_after=InterruptedTraining)
    )
    with place as folder:
        if config.resume and is_finished(folder):
            print(f"{folder}: the run is finished", file=sys.stderr)
            return 0
        if config.method == "probe":
            auroc = fit_frozen(config, model, items, reference, device)
        else:
            auroc = fit(config, model, items, reference, folder, pretrained)
        facts = {
            "reference": reference_facts(reference),
            "input": config.input,
            "pretrained": pretrained,
            "method": config.method,
            "split": splits.groups,
            "grouping": dataclasses.asdict(splits.grouping),
            "labels": splits.labels,
            "counts": {**{name: len(own) for name, own in items.items()}, "unused": splits.unused},
            "window": config.window,
            # what `evaluate` must not be given to measure on, and the baseline that it prints
            "seen": [str(i) for i in seen_regions(items, reference, config.window)],
            "consequence_shares": consequence_shares(items["train"]),
            "valid_auroc": auroc,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        save_seen(folder, np.unique(window_keys([*items["train"], *items["valid"]], reference, config.window)))
        save_model(model, folder, card=card(config, facts, model), provenance=provenance(config, **facts))
        drop_checkpoints(folder)
        print(
            f"{folder}: AUROC {auroc:.3f} on {', '.join(splits.groups['valid'])}, which chose it; "
            f"trained on {len(items['train']):,} variants",
            file=sys.stderr,
        )
    return 0


def make_model(config: Config) -> tuple[VariantClassifier, dict[str, str] | None]:
    """The model before training, and where its weights come from.

    Raises:
        CheckpointError: ``model`` is no language model.
    """
    from genomamba.model.folder import initialise_backbone
    from genomamba.model.heads import VariantClassifier
    from genomamba.pipelines.pretrained_start import load_pretrained, say_scratch

    head = dataclasses.replace(config.head, d_hidden=0) if config.method == "probe" else config.head
    if config.model is None:
        say_scratch()
        return VariantClassifier(config.architecture, head), None
    pretrained, source = load_pretrained(config.model)
    model = VariantClassifier(pretrained.config, head)
    initialise_backbone(model, pretrained)
    return model, source


def card(config: Config, facts: dict[str, Any], model: VariantClassifier) -> str:
    """The model card."""
    split, grouping = facts["split"], facts["grouping"]
    what = f"value of {grouping['column']}" if grouping["by"] == "column" else grouping["by"]
    made = f"from `{config.model}` ({config.method})" if config.model else "from scratch"
    return f"""# Variant classifier

{facts["parameters"]:,} parameters, trained {made} on {facts["counts"]["train"]:,} labelled
variants of {", ".join(split["train"])} (`{config.input}`), windows of {config.window} bases, seed {config.seed}.

- Chosen and calibrated on {", ".join(split["valid"])}: AUROC {facts["valid_auroc"]:.3f},
  slope {float(model.slope):.2f}, intercept {float(model.intercept):.2f}, threshold {float(model.threshold):.3f}.
- Held out: {", ".join(split.get("test", [])) or "nothing"}; splits share no {what}.
  Measure it with `genomamba evaluate variants`.

A pooled figure over variants of all kinds mostly measures their consequence class: read the figures within classes.
Research use only; it has not been evaluated for clinical use.
"""
