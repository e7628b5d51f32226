"""Train a variant classifier from labelled variants, starting from a pretrained model.

Splits are by gene, so that no figure comes from a gene that training has seen. The validation genes choose the
epoch, the calibration and the threshold; the test genes are only checked for leaks here, and measured by
`genomamba evaluate variants`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genomamba.model.config import VariantHeadConfig
from genomamba.pipelines.options import option
from genomamba.tasks.config import Device, OptimizerConfig, Precision

if TYPE_CHECKING:
    from genomamba.model.heads import VariantClassifier


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r")
    input: str = option("labelled VCF, or a table with chrom, pos, ref, alt, label", short="-i")
    model: str = option("run folder of `pretrain`", short="-m")
    output: str = option("run folder to create", short="-o")
    label: str | None = option("INFO key or column of the label; CLNSIG in a VCF, label in a table", None)
    train: list[str] = option("genes to train on", [])
    valid: list[str] = option("genes that choose epoch, calibration and threshold", [])
    test: list[str] = option("genes held out for evaluate", [])
    window: int = option("bases of context around each variant", 256, at_least=2)
    batch_size: int = option("variants per step", 32, at_least=1)
    epochs: int = option("passes over the training variants", 3, at_least=1)
    contig_aliases: Literal["none", "auto"] = option(
        "auto: match 1 with chr1 and MT with chrM where lengths agree", "none"
    )
    max_mismatch_frac: float = option(
        "refuse the input when REF disagrees in a larger share of alleles", 0.05, at_least=0
    )
    seed: int = option("of the head's weights, order and strands", 0, at_least=0)
    workers: int = option("loader processes", 0, short="-@", at_least=0)
    device: Device = option("where to train", "auto")
    precision: Precision = option("32-true, or bf16-mixed with fp32 master weights", "32-true")
    rna: bool = option("read U in the reference as T", False)
    force: bool = option("replace an existing run folder", False)
    head: VariantHeadConfig = option("the head", VariantHeadConfig())
    optimizer: OptimizerConfig = option("AdamW and its schedule", OptimizerConfig(lr=1e-3))


def run(config: Config) -> int:
    from lightning import seed_everything
    from torch.utils.data import DataLoader

    from genomamba.data.datasets import KeySampler
    from genomamba.errors import CheckpointError
    from genomamba.model.backbone import CausalLM
    from genomamba.model.folder import initialise_backbone, load_model, save_model
    from genomamba.model.heads import VariantClassifier
    from genomamba.pipelines.labelled import load_splits, seen_regions
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.pretrain import reference_facts
    from genomamba.pipelines.run_folder import check_free, new_run, provenance
    from genomamba.scoring.metrics import consequence_shares
    from genomamba.tasks.progress import TrainingProgress
    from genomamba.tasks.stop_signals import StopAtOnce, StopSignals
    from genomamba.tasks.trainer import make_trainer, resolve_device
    from genomamba.tasks.variants import EveryVariant, TrainingVariants, VariantTask, collate_variants

    check_free(config.output, force=config.force, inputs=(config.reference, config.input, config.model))
    resolve_device(config.device)
    pretrained = load_model(config.model)
    if not isinstance(pretrained, CausalLM):
        raise CheckpointError("it is not a causal language model", "give a run folder of `pretrain`", file=config.model)
    reference = open_reference(config.reference, rna=config.rna)
    splits = load_splits(config, reference)
    seed_everything(config.seed, verbose=False)
    model = VariantClassifier(pretrained.config, config.head)
    initialise_backbone(model, pretrained)

    def columns(split: str) -> tuple[list[Any], list[int]]:
        return [item.variant for item in splits[split]], [item.label for item in splits[split]]

    variants, labels = columns("train")
    steps = config.epochs * -(-len(labels) // config.batch_size)
    training = DataLoader(
        TrainingVariants(reference, variants, labels, config.window, config.seed),
        batch_size=config.batch_size,
        sampler=KeySampler(len(labels), shuffle_seed=config.seed),
        collate_fn=collate_variants,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
    validation = DataLoader(
        EveryVariant(reference, *columns("valid"), config.window),
        batch_size=config.batch_size,
        collate_fn=collate_variants,
        num_workers=config.workers,
    )
    inputs = (config.reference, config.input, config.model)
    with new_run(config.output, config, force=config.force, inputs=inputs) as folder:
        task = VariantTask(model, config.optimizer, steps, positive_share=sum(labels) / len(labels))
        bar = TrainingProgress("fine-tuning", steps, bases_per_step=2 * config.window * config.batch_size)
        stop = StopSignals()
        trainer = make_trainer(
            folder,
            steps=steps,
            clip=config.optimizer.clip,
            device=config.device,
            precision=config.precision,
            callbacks=[bar, StopAtOnce(stop)],
        )
        with stop:
            trainer.fit(task, training, validation)
        facts = {
            "reference": reference_facts(reference),
            "input": config.input,
            "pretrained": {"path": os.path.abspath(config.model)},
            "split": {"train": config.train, "valid": config.valid, "test": config.test},
            "counts": {name: len(items) for name, items in splits.items()},
            "window": config.window,
            # what `evaluate` must not be given to measure on, and the baseline that it prints
            "seen": [str(i) for i in seen_regions(splits, reference, config.window)],
            "consequence_shares": consequence_shares(splits["train"]),
            "valid_auroc": task.best_auroc,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        save_model(model, folder, card=card(config, facts, model), provenance=provenance(config, **facts))
        print(
            f"{folder}: AUROC {task.best_auroc:.3f} on {', '.join(config.valid)}, which chose the epoch; "
            f"trained on {len(labels):,} variants",
            file=sys.stderr,
        )
    return 0


def card(config: Config, facts: dict[str, Any], model: VariantClassifier) -> str:
    """The model card."""
    return f"""# Variant classifier

{facts["parameters"]:,} parameters, fine-tuned from `{config.model}` on {facts["counts"]["train"]:,} labelled
variants of {", ".join(config.train)} (`{config.input}`), windows of {config.window} bases,
{config.epochs} epochs, seed {config.seed}.

- Chosen and calibrated on {", ".join(config.valid)}: AUROC {facts["valid_auroc"]:.3f},
  slope {float(model.slope):.2f}, intercept {float(model.intercept):.2f}, threshold {float(model.threshold):.3f}.
- Held out: {", ".join(config.test) or "nothing"}. Measure it with `genomamba evaluate variants`.

A pooled figure over variants of all kinds mostly measures their consequence class: read the figures within classes.
Research use only; it has not been evaluated for clinical use.
"""
