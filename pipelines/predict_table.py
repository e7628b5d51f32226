"""What `predict` makes of a model of whole sequences: a table with a row per record, shard by shard."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from genomamba.data.reference import Reference
from genomamba.data.table_write import TableWriter, cell_text
from genomamba.data.tracks import write_text
from genomamba.genome.interval import Interval
from genomamba.model.folder import load_model
from genomamba.model.sequence_heads import SequenceModel
from genomamba.pipelines.chosen_regions import chosen_regions
from genomamba.pipelines.region_rows import (
    REGION_COLUMNS,
    Row,
    read_intervals,
    region_columns,
    region_rows,
    say_statuses,
)
from genomamba.pipelines.region_shards import reading_facts
from genomamba.pipelines.sharded import Amounts, cut, fixed_size, in_order, kept, missing_on_devices, say_halved, sizes
from genomamba.pipelines.shards import Shards
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.sequences import SequenceScorer

if TYPE_CHECKING:
    from genomamba.pipelines.predict import Config

DECISIVE = ("batch_size", "shard_size", "rna")  # options that have a say in the answers, besides the inputs
Answers = dict[str, NDArray[np.float64]]  # "answers": (R, C) or (R,), as of `SequenceScorer.answers`


def answer(config: Config, model: SequenceModel, reference: Reference, devices: list[str]) -> int:
    """The table."""
    placed = chosen_regions(config, reference)
    rows = region_rows(placed, reference)
    device = torch.device(devices[0])
    facts = partial(reading_facts, "predict", config, DECISIVE, placed, reference, model, device)
    amounts = Amounts(sizes(len(rows), config.shard_size), "sequences predicted")
    halved = None
    with kept(config, facts, amounts) as shards:
        if shards is not None and len(devices) > 1:
            parts = ((number, read_intervals(part)) for number, part in cut(rows, config.shard_size))
            halved = missing_on_devices(shards, parts, len(amounts.shards), answer_recipe(config), devices)
        worker = Answerer(model, reference, batch_size=fixed_size(config.batch_size), device=device)
        with closing(answer_blocks(worker, rows, config.shard_size, shards)) as blocks:
            if shards is None:
                write_text("-", tsv_lines(answer_columns(model), blocks))
            else:
                write_table(config.output, answer_columns(model), blocks, shards.folder)
    say_halved(halved or worker.halved, " bases")
    print(f"{config.output}: {len(rows):,} sequences", file=sys.stderr)
    if len(model.classes) == 2:
        print(f"{model.classes[1]} is predicted from a probability of {model.threshold.item():.4g} on", file=sys.stderr)
    say_statuses(rows)
    return 0


@dataclass(frozen=True)
class AnswerRecipe:
    """See `Recipe`; ``batch_size`` is None where it is planned."""

    model: str
    reference: str
    rna: bool
    batch_size: int | None

    def make(self, device: torch.device) -> Answerer:
        model = load_model(self.model)
        assert isinstance(model, SequenceModel)
        reference = Reference.open(self.reference, rna=self.rna)
        return Answerer(model, reference, batch_size=self.batch_size, device=device)


def answer_recipe(config: Config) -> AnswerRecipe:
    """For other processes of this machine."""
    return AnswerRecipe(config.model, config.reference, config.rna, fixed_size(config.batch_size))


class Answerer:
    """Intervals to a model's answers, in order."""

    def __init__(
        self, model: SequenceModel, reference: Reference, *, batch_size: int | None, device: torch.device
    ) -> None:
        self._reference = reference
        self.scorer = SequenceScorer(model, batch_size=batch_size, device=device)

    @property
    def halved(self) -> Halved | None:
        """What became of its batches until now; None where they fit."""
        return self.scorer.halved

    def __call__(self, intervals: Sequence[Interval]) -> Answers:
        model = self.scorer.model
        answers = np.empty((len(intervals),) if model.is_regression else (len(intervals), len(model.classes)))
        # Like lengths together, so that little is padding.
        order = sorted(range(len(intervals)), key=lambda at: intervals[at].length)
        if order:
            answers[order] = self.scorer.answers([self._reference.ids(intervals[at]) for at in order])
        return {"answers": answers}


Columns = dict[str, list[Any]]


def answer_columns(model: SequenceModel) -> dict[str, type]:
    """Names and types of the table's columns."""
    answer = {"predicted": float} if model.is_regression else {"predicted": str}
    return {**REGION_COLUMNS, **answer, **{f"p_{name}": float for name in model.classes}}


def answer_blocks(worker: Answerer, rows: Sequence[Row], shard_size: int, shards: Shards | None) -> Generator[Columns]:
    """Columns of a shard's records at a time, under a bar; None where there is no answer."""
    model = worker.scorer.model
    names = ["predicted", *(f"p_{name}" for name in model.classes)]

    def work(part: Sequence[Row]) -> Answers:
        return worker(read_intervals(part))

    with progress_bar() as bar:  # it ends before the file stands: a reader that has gone is told then
        task = bar.add_task("predicting", total=len(rows), note="sequences")
        for block, found in in_order(shards, cut(rows, shard_size), work):
            columns: Columns = {**region_columns(block), **{name: [None] * len(block) for name in names}}
            read = [at for at, row in enumerate(block) if row.is_read]
            for at, row in zip(read, _cells(model, found["answers"]), strict=True):
                for name, cell in zip(names, row, strict=True):
                    columns[name][at] = cell
            yield columns
            bar.advance(task, len(block))
    if shards:
        shards.publishing()


def _cells(model: SequenceModel, answers: NDArray[np.float64]) -> list[list[Any]]:
    """Of each answer, as columns have them."""
    if model.is_regression:
        return [[value] for value in answers.tolist()]
    called = model.called(torch.from_numpy(answers).to(model.threshold.device)).tolist()
    return [[model.classes[c], *row] for c, row in zip(called, answers.tolist(), strict=True)]


def tsv_lines(names: Iterable[str], blocks: Iterator[Columns]) -> Iterator[str]:
    """A header, and a line per record; NA where there is no answer."""
    yield "\t".join(names) + "\n"
    for columns in blocks:
        yield "".join("\t".join(map(cell_text, row)) + "\n" for row in zip(*columns.values(), strict=True))


def write_table(path: str, columns: Mapping[str, type], blocks: Iterator[Columns], folder: Path) -> None:
    """To a file, whole or not at all; ``folder`` as of `whole_file`."""
    with TableWriter(path, columns, force=True, folder=folder) as table:  # what may not be replaced was refused before
        for block in blocks:
            for row in zip(*block.values(), strict=True):
                table.write(row)
