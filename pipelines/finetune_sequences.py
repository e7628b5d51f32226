"""Train a classifier, or a regression, of whole sequences: from a pretrained model, or from scratch.

The input is a table with the columns sequence, label and split (train, dev, test), or FASTA or BED with --labels;
splits may be whole contigs, genes or blocks of the genome instead of a column. The dev split chooses the epoch, the
temperature and the threshold; where there is none, a share of train takes its place.
Splits that share a sequence or its reverse complement are refused, or with --leaks drop what is shared leaves
training. Measure the model by `genomamba evaluate sequences`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from genomamba.model.config import ModelConfig, SequenceHeadConfig
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import OR_SHIPPED
from genomamba.tasks.config import AugmentConfig, Device, LoraConfig, Method, OptimizerConfig, Precision, ProbeConfig


@dataclass(frozen=True)
class Config:
    input: str = option("table of sequence, label and split; FASTA or BED with --labels", short="-i", reads="file")
    output: str = option("run folder to create", short="-o", writes="run")
    model: str | None = option(
        f"run folder of `pretrain`, {OR_SHIPPED}; from scratch when not given", None, short="-m", reads="model"
    )
    labels: str | None = option("table of name, label and split, for FASTA and BED", None, reads="file")
    reference: str | None = option("FASTA that a BED stands on", None, short="-r", reads="file")
    columns: list[str] = option("other names of columns, such as label=y split=part", [])
    task: Literal["classification", "regression"] = option("what labels are: names, or numbers", "classification")
    method: Method = option("train everything, the head, low-rank updates, or a probe of frozen features", "full")
    leaks: Literal["refuse", "drop"] = option("what happens to sequences that splits share", "refuse")
    split_by: Literal["column", "contig", "gene", "block"] = option(
        "what splits do not share: what the column split says, contigs or blocks of a BED's genome, or the column gene",
        "column",
    )
    dev: list[str] = option(
        "contigs or genes that choose epoch, calibration and threshold; a random share of train when not given", []
    )
    test: list[str] = option("contigs or genes held out for evaluate; all others train", [])
    block_size: int = option("bases of a block of --split-by block", 1_000_000, at_least=1)
    dev_share: float = option("share of train, or of blocks, that becomes dev where nothing else says", 0.1, at_least=0)
    test_share: float = option("of blocks, held out for evaluate", 0.1, at_least=0)
    class_weights: Literal["none", "balanced"] = option("balanced: each class counts alike in training", "none")
    batch_size: int = option("sequences per step", 32, at_least=1)
    epochs: int = option("passes over the training sequences", 10, at_least=1)
    patience: int | None = option("epochs without a better dev figure before training ends", 3, at_least=1)
    max_minutes: float | None = option("end training after so long", None, at_least=0)
    smoothing: float = option("share of a label that is spread over all classes", 0.0, at_least=0)
    average: float = option("decay of a running mean of weights, which is then what is kept; 0: none", 0.0, at_least=0)
    dropout: float | None = option(
        "in the blocks of the pretrained model; as it has it when not given", None, at_least=0
    )
    seed: int = common.seed("weights, order, strands, the dev share and which block is which")
    workers: int = option("loader processes", 0, short="-@", at_least=0)
    device: Device = option("where to train", "auto")
    precision: Precision = option("32-true, or bf16-mixed with fp32 master weights", "32-true")
    cuda_graph: bool = option("on a GPU, replay steps on sequences of one length as CUDA graphs", False)
    rna: bool = option("read U as T", False)
    force: bool = option("replace an existing run folder", False)
    resume: bool = common.resume_training()
    checkpoint_every: int | None = common.checkpoint_every()
    head: SequenceHeadConfig = option("the head", SequenceHeadConfig())
    architecture: ModelConfig = option("of a model from scratch", ModelConfig())
    lora: LoraConfig = option("of --method lora", LoraConfig())
    probe: ProbeConfig = option("of --method probe", ProbeConfig())
    augment: AugmentConfig = option("what is done to training sequences", AugmentConfig())
    optimizer: OptimizerConfig = option("AdamW or Muon, and the schedule", OptimizerConfig(lr=1e-3))


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """Options, and groups of them, that this configuration does not read, and what they count with."""
    yield from common.other_methods(config.method)
    if config.method == "probe":  # which is not trained in steps
        for name in ("resume", "checkpoint_every"):
            yield name, "--method full, head or lora"
    if config.head.pooling != "regions":
        yield "head.regions", "--head.pooling regions"
    if config.split_by not in ("contig", "gene"):
        yield "dev", "--split-by contig or gene"
        yield "test", "--split-by contig or gene"
    if config.split_by != "block":
        yield "block_size", "--split-by block"
        yield "test_share", "--split-by block"
    yield from common.other_starts(config.model)


def run(config: Config) -> int:
    from lightning import seed_everything

    from genomamba.data.sequence_splits import check_split, sequence_keys, split_sequences
    from genomamba.data.sequences import class_names
    from genomamba.model.folder import save_model
    from genomamba.model.sequence_heads import SequenceModel
    from genomamba.pipelines.fit_sequences import fit, fit_frozen, set_scales
    from genomamba.pipelines.pretrained_start import started
    from genomamba.pipelines.run_folder import (
        check_free,
        drop_checkpoints,
        is_finished,
        new_run,
        provenance,
        resume_run,
    )
    from genomamba.pipelines.seen import save_seen
    from genomamba.pipelines.sequence_input import in_their_splits, load_sequences
    from genomamba.tasks.device import resolve_device
    from genomamba.tasks.stop_signals import InterruptedTraining

    inputs = (config.input, config.model, config.labels, config.reference)
    if not config.resume:
        check_free(config.output, force=config.force, inputs=inputs)
    check_options(config)
    device = resolve_device(config.device)
    is_regression = config.task == "regression"
    found = load_sequences(config, with_genes=config.split_by == "gene")
    found = in_their_splits(found, dataclasses.asdict(config))
    splits = split_sequences(
        found, leaks=config.leaks, dev_share=config.dev_share, seed=config.seed, regression=is_regression
    )
    classes = [] if is_regression else class_names([item.label for item in splits.train])
    for name in ("train", "dev"):
        check_split(getattr(splits, name), name, classes, found.source)
    if len(classes) > MOST_CLASSES:
        refuse_many_classes(classes, found.source)
    for reason, count in splits.dropped.items():
        print(f"{found.source}: left out {count:,} sequences, {reason}", file=sys.stderr)
    seed_everything(config.seed, verbose=False)
    model, pretrained = started(config, lambda architecture: SequenceModel(architecture, config.head, classes))
    weights = set_scales(model, splits.train, config, found.source)
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
            dev, stopped = fit_frozen(config, model, splits, weights, found.source, device), None
        else:
            dev, stopped = fit(config, model, splits, found.source, folder, pretrained)
        facts: dict[str, Any] = {
            "input": config.input,
            "pretrained": pretrained,
            "method": config.method,
            "classes": classes,
            "counts": {name: len(getattr(splits, name)) for name in ("train", "dev", "test")},
            "dropped": splits.dropped,
            "longest": max(item.ids.size for item in splits.train),
            "dev": dev,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        save_seen(folder, sequence_keys([*splits.train, *splits.dev]))
        save_model(model, folder, card=card(config, facts), provenance=provenance(config, **facts))
        if stopped is None:
            drop_checkpoints(folder)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in dev.items() if name.startswith("valid_"))
        print(f"{folder}: on dev, which chose it: {shown}; trained on {len(splits.train):,} sequences", file=sys.stderr)
    if stopped is not None:
        print(stopped.told, file=sys.stderr)
        return stopped.exit_code
    return 0


MOST_CLASSES = 200


def check_options(config: Config) -> None:
    """Raises ConfigError where options do not go together."""
    from genomamba.errors import ConfigError
    from genomamba.pipelines.pretrained_start import check_start

    check_start(config)
    common.check_below_one(config, "smoothing", "average", "dev_share", "test_share", "dropout")
    if config.split_by in ("contig", "gene") and not config.test:
        raise ConfigError(
            "nothing is held out by it", f"name {config.split_by}s by --test", field="split_by", value=config.split_by
        )
    if config.method == "probe" and (config.head.d_hidden or config.head.pooling in ("attention", "regions")):
        raise ConfigError(
            "a probe has no layers that training could fit",
            "set --head.d_hidden 0, and --head.pooling mean, max or last",
            field="method",
            value="probe",
        )
    if config.task == "regression" and (config.smoothing or config.class_weights != "none"):
        raise ConfigError("a regression has no classes", "leave out --smoothing and --class-weights", field="task")


def refuse_many_classes(classes: list[str], source: str) -> None:
    """Raises LabelError: numbers were probably meant as numbers."""
    from genomamba.errors import LabelError

    raise LabelError(
        f"there are {len(classes):,} classes, such as {', '.join(classes[:3])}",
        "pass --task regression if labels are numbers",
        file=source,
        field="label",
    )


def card(config: Config, facts: dict[str, Any]) -> str:
    """The model card."""
    what = f"Classes: {', '.join(facts['classes'])}." if facts["classes"] else "It predicts a value."
    made = f"from `{config.model}` ({config.method})" if config.model else "from scratch"
    dropped = "; ".join(f"{count:,} {reason}" for reason, count in facts["dropped"].items()) or "none"
    figures = ", ".join(f"{name[6:]} {value:.4f}" for name, value in facts["dev"].items() if name.startswith("valid_"))
    counts = facts["counts"]
    return f"""# Model of whole sequences

{facts["parameters"]:,} parameters, trained {made} on {counts["train"]:,} sequences of `{config.input}`, up to
{facts["longest"]:,} bases each; seed {config.seed}. {what}

- Strands: {STRANDS[config.head.strands]}.
- Chosen and calibrated on {counts["dev"]:,} dev sequences: {figures}.
- Left out: {dropped}.
- Held out: {counts["test"]:,} test sequences. Measure it with `genomamba evaluate sequences`.

Research use only; it has not been evaluated for clinical use.
"""


STRANDS = {
    "both": "the answers for a sequence and for its reverse complement are averaged",
    "given": "a sequence is read as it is given",
    "joined": "one head reads both strands, and knows which was given",
}
