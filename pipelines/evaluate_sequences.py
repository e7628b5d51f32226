"""Measure a model of whole sequences on labelled ones that it has not seen.

Classes: MCC, AUROC, AUPRC, accuracy, F1, Brier score and calibration error; values: correlations and errors; each with
a 95 % bootstrap interval, NA where it is not defined. Where fine-tuning split these sequences by contigs, genes or
blocks, those that it held out are measured; of an input that it has seen nothing of, all, or its test split. Sequences
that training or dev had, on either strand, are refused, or with --leaks drop left out; a sequence that stands in the
input twice counts once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rich.table import Table

    from genomamba.data.sequences import LabelledSequence, LabelledSequences
    from genomamba.model.sequence_heads import SequenceModel


@dataclass(frozen=True)
class Config:
    input: str = option("table of sequence and label; FASTA or BED with --labels", short="-i", reads="file")
    model: str = option("run folder of `finetune sequences`", short="-m", reads="model")
    output: str | None = option("JSON file for the figures", None, short="-o", writes="file", formats=common.JSON)
    predictions: str | None = option(
        "TSV file for what is predicted of each sequence, by bgzip if .tsv.gz",
        None,
        writes="file",
        formats=common.TSV,
    )
    labels: str | None = option("table of name and label, for FASTA and BED", None, reads="file")
    reference: str | None = option("FASTA that a BED stands on", None, short="-r", reads="file")
    columns: list[str] = option("other names of columns, such as label=y split=part", [])
    strata: list[str] = option("columns within whose values figures are given too", [])
    leaks: Literal["refuse", "drop"] = option("what happens to sequences that training has seen", "refuse")
    batch_size: int = option("sequences per forward pass", 64, at_least=1)
    rna: bool = option("read U as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace existing outputs", False)


def run(config: Config) -> int:
    from genomamba.model.folder_files import SEQUENCE
    from genomamba.pipelines.model_kind import check_head

    check_head(config.model, SEQUENCE)  # before what takes seconds to import

    import numpy as np

    from genomamba.data.sequence_splits import sequence_keys
    from genomamba.data.tracks import write_text
    from genomamba.files import refuse_existing, whole_file
    from genomamba.model.folder import load_model, weights_fingerprint
    from genomamba.model.sequence_heads import SequenceModel
    from genomamba.pipelines.model_provenance import read_provenance
    from genomamba.pipelines.printed_tables import print_tables
    from genomamba.pipelines.seen import load_seen
    from genomamba.pipelines.sequence_input import in_their_splits, load_sequences
    from genomamba.scoring.sequences import SequenceScorer
    from genomamba.tasks.device import resolve_device

    for output in (config.output, config.predictions):
        if output is not None:
            refuse_existing(output, force=config.force)
    device = resolve_device(config.device)
    model = load_model(config.model)
    assert isinstance(model, SequenceModel)
    found = load_sequences(config, tuple(config.strata))
    made = read_provenance(config.model).get("configuration", {})
    by_group = made.get("split_by", "column") != "column"
    if by_group and np.isin(sequence_keys(found.items), load_seen(config.model)).any():
        found = in_their_splits(found, made, all_there=False)
    items, left_out = measured(config, found, is_regression=model.is_regression)
    check_labels(items, model, found.source)
    scorer = SequenceScorer(model, batch_size=config.batch_size, device=device)
    answers = scorer.answers([item.ids for item in items])
    evaluation: dict[str, Any] = {
        "model": config.model,
        "weights": weights_fingerprint(config.model),
        "input": config.input,
        "sequences": len(items),
        "left_out": left_out,
        **figures(model, items, answers, config.strata, found.source),
    }
    if config.output is not None:
        with whole_file(config.output) as path:
            path.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    if config.predictions is not None:
        write_text(config.predictions, prediction_lines(model, items, answers))
    for reason, count in left_out.items():
        print(f"{found.source}: left out {count:,} sequences, {reason}", file=sys.stderr)
    print_tables(tables(evaluation))
    return 0


def measured(
    config: Config, found: LabelledSequences, *, is_regression: bool
) -> tuple[list[LabelledSequence], dict[str, int]]:
    """The test sequences, or all where the input names no splits, that the model has not seen; and what was left out.

    Raises:
        LabelError: there are none, or the model has seen one.
    """
    from genomamba.data.sequence_splits import once_each, unseen
    from genomamba.errors import LabelError
    from genomamba.pipelines.seen import load_seen

    items = [item for item in found.items if item.split in ("test", "")]
    if not items:
        raise LabelError(
            "no row is marked test, and none is of a group that fine-tuning held out",
            "mark some, or leave out the column",
            file=found.source,
            field="split",
        )
    left_out = found.left_out
    items, repeated = once_each(items, regression=is_regression)
    new = unseen(items, load_seen(config.model), leaks=config.leaks, source=found.source)
    if len(new) < len(items):
        left_out["seen in training"] = len(items) - len(new)
    return new, {**left_out, **repeated}


def check_labels(items: Sequence[LabelledSequence], model: SequenceModel, source: str) -> None:
    """Raises LabelError where a label is none of the model's classes, or all are of one."""
    from genomamba.data.sequence_splits import check_split

    check_split(items, "test", model.classes, source)


def figures(
    model: SequenceModel,
    items: Sequence[LabelledSequence],
    answers: NDArray,
    strata: Sequence[str],
    source: str,
) -> dict[str, Any]:
    """Counts and figures, overall and within strata, as JSON holds them."""
    from collections import Counter

    import numpy as np
    import torch

    from genomamba.data.sequence_splits import number
    from genomamba.scoring.sequence_metrics import classification_figures, per_stratum, regression_figures

    columns = {name: [item.strata[place] for item in items] for place, name in enumerate(strata)}
    everything = np.arange(len(items))
    if model.is_regression:
        values = np.array([number(item, source) for item in items])

        def of(rows: NDArray) -> dict[str, Any]:
            return dict(regression_figures(values[rows], answers[rows]))

        return {"overall": of(everything), "within": per_stratum(columns, of)}
    place = {name: index for index, name in enumerate(model.classes)}
    truth = np.array([place[item.label] for item in items])
    called = model.cpu().called(torch.from_numpy(answers)).numpy()

    def of_classes(rows: NDArray) -> dict[str, Any]:
        return dict(classification_figures(truth[rows], answers[rows], called[rows]))

    counts = Counter(item.label for item in items)
    return {
        "classes": {name: counts[name] for name in model.classes},
        "threshold": float(model.threshold) if len(model.classes) == 2 else None,
        "temperature": float(model.temperature),
        "overall": of_classes(everything),
        "within": per_stratum(columns, of_classes),
    }


def prediction_lines(model: SequenceModel, items: Sequence[LabelledSequence], answers: NDArray) -> list[str]:
    """A header, and a line per sequence: where it was read, its label, what is predicted."""
    import torch

    if model.is_regression:
        rows = [(str(item.line), item.label, f"{value:.6g}") for item, value in zip(items, answers, strict=True)]
        header = ("line", "label", "predicted")
        return ["\t".join(row) + "\n" for row in (header, *rows)]
    called = model.cpu().called(torch.from_numpy(answers)).tolist()
    lines = ["\t".join(("line", "label", "predicted", *(f"p_{name}" for name in model.classes))) + "\n"]
    for item, row, index in zip(items, answers, called, strict=True):
        cells = (str(item.line), item.label, model.classes[index], *(f"{p:.6f}" for p in row))
        lines.append("\t".join(cells) + "\n")
    return lines


def tables(evaluation: dict[str, Any]) -> list[Table]:
    """What is printed: the figures overall, and a table of each column of strata."""
    from rich.box import SIMPLE
    from rich.table import Table

    from genomamba.scoring.metrics import Figure

    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation.get("classes", {}).items())
    title = f"{evaluation['sequences']:,} sequences" + (f": {counts}" if counts else "")
    overall = Table(title=title, box=SIMPLE, title_justify="left")
    overall.add_column("figure")
    overall.add_column("95 % interval in brackets", justify="right")
    for name, figure in evaluation["overall"].items():
        overall.add_row(name, str(Figure(*figure)))
    found = [overall]
    shown = list(evaluation["overall"])[:3]
    for column, rows in evaluation["within"].items():
        table = Table(box=SIMPLE)
        table.add_column(f"within {column}", no_wrap=True)
        for name in ("sequences", *shown):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            cells = (str(Figure(*row[name])) for name in shown)
            table.add_row(row["stratum"], f"{row['sequences']:,}", *cells)
        found.append(table)
    return found
