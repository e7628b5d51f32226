"""Apply a model to sequences: classes or values of whole ones, or tracks along them.

A model of whole sequences (`finetune sequences`) reads each record or region as one sequence, and answers in a table:
every record keeps its row, in order; one without a base has a status that says why, and no answer. A model of tracks
gives a value per base; each track is written to a file of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import torch

    from genomamba.data.reference import Reference
    from genomamba.model.sequence_heads import SequenceModel, TokenModel
    from genomamba.pipelines.region_rows import Row

AT_ONCE = 4096  # sequences in memory


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that is to be read", short="-r", reads="file")
    model: str = option("run folder of `finetune sequences` or `finetune tracks`", short="-m", reads="model")
    output: str = option(
        "table: .tsv, .tsv.gz or .parquet, - is stdout; tracks: .bw or .bedgraph, and with several .NAME before that",
        "-",
        short="-o",
    )
    regions: str | None = common.bed_of_regions("every record whole")
    region: list[str] = common.named_regions()
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    batch_size: int = option("sequences per forward pass", 64, at_least=1)
    window: int | None = common.reading_window("of tracks, ")
    overlap: int | None = common.reading_overlap("of tracks, ")
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    check_output(config)  # before what takes seconds to import

    from genomamba.model.folder import load_model
    from genomamba.model.sequence_heads import SequenceModel, TokenModel
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.tasks.device import resolve_device

    device = resolve_device(config.device)
    model = load_model(config.model)
    reference = open_reference(config.reference, rna=config.rna)
    if isinstance(model, TokenModel):
        return predict_to_tracks(config, model, reference, device)
    assert isinstance(model, SequenceModel)
    return answer(config, model, reference, device)


def check_output(config: Config) -> None:
    """Whether the model answers, and its answers may be written there; raises CheckpointError or OutputError."""
    from genomamba.model.folder_files import SEQUENCE, TOKEN, track_names
    from genomamba.pipelines.model_kind import check_head

    made = check_head(config.model, SEQUENCE, TOKEN)
    if made["task"] == TOKEN:
        check_tracks(config, track_names(made, config.model))
    else:
        check_table(config)


def check_table(config: Config) -> None:
    """Raises OutputError where there can be no table."""
    from genomamba.errors import OutputError
    from genomamba.files import refuse_existing

    if config.output == "-":
        return
    if not config.output.lower().endswith((".tsv", ".tsv.gz", ".parquet")):
        raise OutputError(
            "the extension names no format of tables", "use .tsv, .tsv.gz or .parquet", file=config.output
        )
    refuse_existing(config.output, force=config.force)


def check_tracks(config: Config, tracks: Sequence[str]) -> None:
    """Raises OutputError where the tracks cannot be written."""
    from genomamba.data.tracks import track_format, track_paths
    from genomamba.errors import OutputError
    from genomamba.files import refuse_existing

    if track_format(config.output) == "tsv":
        raise OutputError("the extension names no format of tracks", "use .bw or .bedgraph", file=config.output)
    if config.output == "-" and len(tracks) > 1:
        raise OutputError(f"the model has {len(tracks)} tracks", "give a file", file=config.output)
    for path in track_paths(config.output, tracks):
        if path != "-":
            refuse_existing(path, force=config.force)


def answer(config: Config, model: SequenceModel, reference: Reference, device: torch.device) -> int:
    """The table."""
    from genomamba.data.tracks import write_text
    from genomamba.pipelines.chosen_regions import chosen_regions
    from genomamba.pipelines.region_rows import region_rows, say_statuses
    from genomamba.progress import progress_bar
    from genomamba.scoring.sequences import SequenceScorer

    rows = region_rows(chosen_regions(config, reference), reference)
    scorer = SequenceScorer(model, batch_size=config.batch_size, device=device)
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(rows), note="sequences")
        blocks = answer_blocks(scorer, rows, reference, partial(bar.advance, task))
        if config.output.lower().endswith(".parquet"):
            write_parquet(config.output, answer_columns(model), blocks)
        else:
            write_text(config.output, tsv_lines(answer_columns(model), blocks))
    print(f"{config.output}: {len(rows):,} sequences", file=sys.stderr)
    if len(model.classes) == 2:
        print(f"{model.classes[1]} is predicted from a probability of {model.threshold.item():.4g} on", file=sys.stderr)
    say_statuses(rows)
    return 0


Columns = dict[str, list[Any]]


def answer_columns(model: SequenceModel) -> dict[str, type]:
    """Names and types of the table's columns."""
    from genomamba.pipelines.region_rows import REGION_COLUMNS

    answer = {"predicted": float} if model.is_regression else {"predicted": str}
    return {**REGION_COLUMNS, **answer, **{f"p_{name}": float for name in model.classes}}


def answer_blocks(
    scorer: Any, rows: Sequence[Row], reference: Reference, progress: Callable[[int], object]
) -> Iterator[Columns]:
    """Columns of so many records at a time; None where there is no answer."""
    import torch

    from genomamba.pipelines.region_rows import region_columns

    model = scorer.model
    names = ["predicted", *(f"p_{name}" for name in model.classes)]
    for start in range(0, len(rows), AT_ONCE):
        block = rows[start : start + AT_ONCE]
        found: Columns = {**region_columns(block), **{name: [None] * len(block) for name in names}}
        # Like lengths together, so that little is padding.
        read = sorted((at for at, row in enumerate(block) if row.is_read), key=lambda at: block[at].interval.length)
        if read:
            answers = scorer.answers([reference.ids(block[at].interval) for at in read])
            if model.is_regression:
                cells = [[value] for value in answers.tolist()]
            else:
                called = model.called(torch.from_numpy(answers).to(model.threshold.device)).tolist()
                cells = [[model.classes[c], *row] for c, row in zip(called, answers.tolist(), strict=True)]
            for at, row in zip(read, cells, strict=True):
                for name, cell in zip(names, row, strict=True):
                    found[name][at] = cell
        yield found
        progress(len(block))


def tsv_lines(names: Iterable[str], blocks: Iterator[Columns]) -> Iterator[str]:
    """A header, and a line per record; NA where there is no answer."""

    def text(value: Any) -> str:
        return "NA" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    yield "\t".join(names) + "\n"
    for columns in blocks:
        yield "".join("\t".join(map(text, row)) + "\n" for row in zip(*columns.values(), strict=True))


def write_parquet(path: str, columns: Mapping[str, type], blocks: Iterator[Columns]) -> None:
    """The same, with nulls."""
    import pyarrow
    import pyarrow.parquet

    from genomamba.files import whole_file

    types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with whole_file(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for block in blocks:
            writer.write_table(pyarrow.table(block, schema))


def predict_to_tracks(config: Config, model: TokenModel, reference: Reference, device: torch.device) -> int:
    """A file per track."""
    import tempfile

    from genomamba.data.datasets import WindowReader
    from genomamba.data.tracks import track_paths, write_track
    from genomamba.pipelines.chosen_regions import chosen_regions, side_by_side
    from genomamba.pipelines.reading_windows import reading_windows
    from genomamba.pipelines.region_rows import region_rows, say_statuses
    from genomamba.progress import progress_bar
    from genomamba.scoring.embeddings import Embedder
    from genomamba.scoring.tracks import TrackSpool, predict_tracks

    window, overlap = reading_windows(config, is_causal=model.config.is_causal)
    rows = region_rows(chosen_regions(config, reference), reference)
    intervals = side_by_side([row.region for row in rows if row.is_read], reference, config.regions)
    embedder = Embedder(
        *(model.backbone, WindowReader(reference, softmask_weight=1.0)),
        window=window,
        overlap=overlap,
        batch_size=1,
        both_strands=False,
        device=device,
    )
    model.to(device)
    with progress_bar() as bar, tempfile.TemporaryFile() as file:
        spool = TrackSpool(file, len(model.tracks))
        task = bar.add_task("predicting", total=sum(each.length for each in intervals), note="bases")
        for interval in intervals:
            spool.write(interval, predict_tracks(model, embedder, interval))
            bar.advance(task, interval.length)
        for number, path in enumerate(track_paths(config.output, model.tracks)):
            write_track(path, reference.contigs, spool.read(number))
    print(f"{config.output}: {len(model.tracks)} tracks of {len(rows):,} regions", file=sys.stderr)
    say_statuses(rows)
    return 0
