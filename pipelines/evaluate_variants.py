"""Measure a variant classifier on labelled variants of genes that it was not trained on.

Prints AUROC, AUPRC, MCC, Brier score and calibration error with 95 % bootstrap intervals, beside what the consequence
class alone reaches, and within each class. The same figures go to the JSON that `genomamba report` shows.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genomamba.pipelines import common_options as common
from genomamba.pipelines.json_shape import EVERY, NUMBER
from genomamba.pipelines.option import option
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from genomamba.data.reference import Reference
    from genomamba.genome.variant import Variant
    from genomamba.model.heads import VariantClassifier
    from genomamba.scoring.variants import VariantScore


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r", reads="file")
    input: str = option("labelled VCF, or a table with chrom, pos, ref, alt, label", short="-i", reads="file")
    model: str = option("run folder of `finetune variants`", short="-m", reads="model")
    output: str | None = option(
        "JSON file for the figures and curves", None, short="-o", writes="file", formats=common.JSON
    )
    genes: list[str] = option(
        "genes (or contigs, or whatever the model was split by) to measure on; the model's own test split if not given",
        [],
    )
    strata: list[str] = option(
        "also within gene, type (SNV or INDEL), contig, or the values of an INFO key or column", []
    )
    labels: str | None = option("file of VALUE, tab, 0 or 1; the model's own when not given", None, reads="file")
    label: str | None = option("INFO key or column of the label; CLNSIG in a VCF, label in a table", None)
    batch_size: int = option("variants per forward pass", 64, at_least=1)
    contig_aliases: common.ContigAliases = common.contig_aliases(" where lengths agree")
    max_mismatch_frac: float = common.max_mismatch_frac()
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


# what provenance.json must say of the classifier
MADE = {
    "split": {"train": [str], "valid": [str]},
    "grouping": {
        "by": str,
        "column": str,
        "block_size": int,
        "valid_share": NUMBER,
        "test_share": NUMBER,
        "seed": int,
        "window": int,
    },
    "labels": {EVERY: int},
    "window": int,
    "seen": [str],
    "consequence_shares": {"": NUMBER, EVERY: NUMBER},
}


def run(config: Config) -> int:
    from genomamba.model.folder_files import VARIANT
    from genomamba.pipelines.model_kind import check_head

    check_head(config.model, VARIANT)  # before what takes seconds to import

    from genomamba.data.label_splits import Grouping, check_classes, no_such_group
    from genomamba.errors import ConfigError
    from genomamba.files import refuse_existing, whole_file
    from genomamba.model.folder import load_model, weights_fingerprint
    from genomamba.model.heads import VariantClassifier
    from genomamba.pipelines.labelled import load_groups, refuse_copies, refuse_seen
    from genomamba.pipelines.model_provenance import read_provenance
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.printed_tables import print_tables
    from genomamba.pipelines.seen import SEEN, load_seen
    from genomamba.scoring.evaluation import evaluate
    from genomamba.scoring.metrics import NO_CLASS
    from genomamba.tasks.device import resolve_device

    if config.output is not None:
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    model = load_model(config.model)
    assert isinstance(model, VariantClassifier)
    made = read_provenance(config.model, MADE)
    genes = config.genes or made["split"].get("test", [])
    if not genes:
        raise ConfigError(
            "the model has no test genes of its own", "name some that it was not trained on", field="genes"
        )
    if seen := sorted(set(genes) & {*made["split"]["train"], *made["split"]["valid"]}):
        raise ConfigError(
            "the model was trained or calibrated on it", "measure on other genes", field="genes", value=", ".join(seen)
        )
    reference = open_reference(config.reference, rna=config.rna)
    grouping = Grouping(**made["grouping"])
    found, measured = load_groups(config, reference, grouping, genes, made["labels"], config.strata)
    known = Counter(map(grouping.of, found.items))
    for gene in config.genes:
        if gene not in known:
            raise no_such_group(gene, known, found.source, grouping.what, "genes")
    refuse_seen(measured, made["seen"], reference, made["window"])
    if (Path(config.model) / SEEN).is_file():
        refuse_copies(measured, load_seen(config.model), reference, made["window"])
    else:
        told = "whether variants lie in copies of what it was trained on is not known; one fine-tuned anew keeps that"
        print(f"{config.model} has no {SEEN}: {told}", file=sys.stderr)
    check_classes(measured, ", ".join(genes), found.source)
    scores = _score(config, model, reference, made["window"], device, [item.variant for item in measured])
    evaluation: dict[str, Any] = {
        "model": config.model,
        "weights": weights_fingerprint(config.model),
        "input": config.input,
        "genes": genes,
        "left_out": {
            **{f"label {k}": n for k, n in found.unlabelled.items()},
            **{str(k): n for k, n in found.skipped.items()},
        },
        **evaluate(
            [item.label for item in measured],
            [item.consequence or NO_CLASS for item in measured],
            scores,
            threshold=float(model.threshold),
            shares=made["consequence_shares"],
            strata={name: [item.column(name) or NO_CLASS for item in measured] for name in config.strata},
        ),
    }
    if config.output is not None:
        with whole_file(config.output) as path:
            path.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    print_tables([*tables(evaluation), note(evaluation)])
    return 0


DECIDES = 0.9  # AUROC of the consequence class alone from which the pooled figures say little of the model


def note(evaluation: dict[str, Any]) -> str:
    """What the consequence class alone means for the pooled figures."""
    alone = evaluation["consequence_only"]["AUROC"][0]
    if alone is None or len(evaluation["within"]) < 2:
        return "Nothing here says how much of the pooled figures a variant's consequence class would reach alone."
    within = "within a class it scores 0.5 by construction, and what is above that is the model's own."
    if alone < DECIDES:
        return f"The consequence class alone reaches an AUROC of {alone:.3f}; {within}"
    return f"The consequence class alone all but decides the pooled label, so the pooled figures measure it; {within}"


def tables(evaluation: dict[str, Any]) -> list[Table]:
    """What is printed: the pooled figures, and those within consequence classes."""
    from rich.box import SIMPLE
    from rich.table import Table

    from genomamba.scoring.metrics import Figure

    def show(figure: Any) -> str:
        return str(Figure(*figure))

    title = (
        f"{', '.join(evaluation['genes'])}: {evaluation['variants']:,} variants, {evaluation['positives']:,} positive"
    )
    pooled = Table(title=title, box=SIMPLE, title_justify="left")
    pooled.add_column("all classes together")
    for column in ("this model", "consequence class alone"):
        pooled.add_column(column, justify="right")
    for name, figure in evaluation["overall"].items():
        alone = evaluation["consequence_only"].get(name)
        pooled.add_row(name, show(figure), "" if alone is None else show(alone))
    pooled.add_row("AUROC, zero-shot (-llr)", show(evaluation["zero_shot"]["AUROC"]), "")

    return [
        pooled,
        _within("class", evaluation["within"]),
        *(_within(column, rows) for column, rows in evaluation["strata"].items()),
    ]


def _within(column: str, rows: list[dict[str, Any]]) -> Table:
    """Figures within each value of a column."""
    from rich.box import SIMPLE
    from rich.table import Table

    from genomamba.scoring.metrics import Figure

    table = Table(box=SIMPLE)
    table.add_column(f"within {column}", no_wrap=True)
    for name in ("variants", "positive", "AUROC", "AUPRC", "zero-shot AUROC"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        counts = (f"{row['variants']:,}", f"{row['positives']:,}")
        figures = (str(Figure(*row[key])) for key in ("AUROC", "AUPRC", "zero_shot_AUROC"))
        table.add_row(row["stratum"], *counts, *figures)
    return table


def _score(
    config: Config,
    model: VariantClassifier,
    reference: Reference,
    window: int,
    device: torch.device,
    variants: list[Variant],
) -> list[VariantScore]:
    from genomamba.progress import progress_bar
    from genomamba.scoring.variants import VariantScorer

    scorer = VariantScorer(model, reference, window=window, batch_size=config.batch_size, device=device)
    with progress_bar() as bar:
        return list(bar.track(scorer(variants), len(variants), task_id=bar.add_task("scoring", note="variants")))
