"""What `embed` works out shard by shard, here or in other processes, and how the file is put together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from genomamba.data.bed import PlacedRegion
from genomamba.data.datasets import WindowReader
from genomamba.data.reference import Reference
from genomamba.data.vectors import VectorBlock, vector_format, write_npz, write_parquet
from genomamba.genome.interval import Interval
from genomamba.interop.loading import load_any_model
from genomamba.model.folder import AnyModel
from genomamba.pipelines.reading_windows import ReadingWindows
from genomamba.pipelines.region_rows import REGION_COLUMNS, Row, read_intervals, region_columns
from genomamba.pipelines.region_shards import BaseValues, Progress, SpoolWorker, fitting_memory, reading_facts
from genomamba.pipelines.shard_worker import ShardWorker
from genomamba.pipelines.sharded import Amounts, cut, fixed_size, in_order, kept, missing_on_devices, say_halved, sizes
from genomamba.pipelines.shards import Facts, Shards
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.embeddings import Embedder, Hidden, Pooling, vector_width
from genomamba.scoring.tracks import TrackSpool

if TYPE_CHECKING:
    from genomamba.pipelines.embed import Config

# Options that have a say in the vectors, besides the inputs and the windows.
DECISIVE = ("pool", "both_strands", "batch_size", "shard_size", "rna")
BASE_COLUMNS: dict[str, type[str] | type[int]] = {"region": int, "name": str, "contig": str, "pos": int, "base": str}


@dataclass(frozen=True)
class EmbedRecipe:
    """See `Recipe`.

    Attributes:
        model: of any kind that has a backbone, which is all of them.
        reference: FASTA.
        rna: see `Reference.open`.
        windows: see `Embedder`.
        batch_size: see `Embedder`.
        both_strands: see `Embedder`.
        pool: ``none`` is a vector per base.
        folder: where files of such are written.
    """

    model: str
    reference: str
    rna: bool
    windows: ReadingWindows
    batch_size: int | None
    both_strands: bool
    pool: Pooling | Literal["none"]
    folder: Path | None = None

    @classmethod
    def of(cls, config: Config, windows: ReadingWindows) -> EmbedRecipe:
        size = fixed_size(config.batch_size)
        return cls(config.model, config.reference, config.rna, windows, size, config.both_strands, config.pool)

    def make(self, device: torch.device) -> PooledWorker | SpoolWorker:
        reference = Reference.open(self.reference, rna=self.rna)
        embedder = self.embedder(load_any_model(self.model), reference, device)
        return self.worker(embedder, lambda done: None)

    def embedder(self, model: AnyModel, reference: Reference, device: torch.device) -> Embedder:
        """Of a model that is loaded already."""
        return Embedder(
            *(model.backbone, WindowReader(reference, softmask_weight=1.0)),
            window=self.windows.window,
            overlap=self.windows.overlap,
            batch_size=self.batch_size,
            both_strands=self.both_strands,
            device=device,
        )

    def worker(self, embedder: Embedder, progress: Progress) -> PooledWorker | SpoolWorker:
        """``progress`` is called with the number of regions done, or of bases where each has a vector."""
        if self.pool != "none":
            return PooledWorker(embedder, self.pool, progress)
        assert self.folder is not None

        def write(spool: TrackSpool, region: Interval) -> None:
            spool.write(region, told(embedder.bases(region), progress))

        return SpoolWorker(self.folder, embedder.width, write, window=self.windows.window)


class PooledWorker:
    """Intervals to their vectors, in order."""

    def __init__(self, embedder: Embedder, how: Pooling, progress: Progress) -> None:
        self._embedder, self._how, self._progress = embedder, how, progress

    @property
    def halved(self) -> Halved | None:
        """What became of its batches until now; None where they fit."""
        return self._embedder.halved

    def __call__(self, intervals: Sequence[Interval]) -> dict[str, Hidden]:
        with fitting_memory(self._embedder.window):  # of regions longer than that; batches of others see to it
            return {"embedding": self._embedder.pooled(intervals, self._how, self._progress)}


def told(pieces: Iterable[Hidden], progress: Progress) -> Iterator[Hidden]:
    """The pieces; ``progress`` hears of each one's length when the next is asked for."""
    for piece in pieces:
        yield piece
        progress(len(piece))


class Job(NamedTuple):
    """What is to be embedded, by what, and where."""

    config: Config
    model: AnyModel
    reference: Reference
    rows: list[Row]
    recipe: EmbedRecipe
    devices: list[str]

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return torch.device(self.devices[0])


def facts(job: Job, placed: Sequence[PlacedRegion]) -> Facts:
    """Everything that has a say in the output's bytes."""
    windows = job.recipe.windows._asdict()
    return reading_facts("embed", job.config, DECISIVE, placed, job.reference, job.model, job.device, **windows)


def write_pooled(job: Job, facts: Callable[[], Facts]) -> int:
    """A vector per record, none where it is not read; returns how many numbers it has."""
    config, rows = job.config, job.rows
    amounts = Amounts(sizes(len(rows), config.shard_size), "regions embedded")
    halved = None
    with kept(config, facts, amounts) as shards:
        assert shards is not None, "stdout was refused"
        if len(job.devices) > 1:
            parts = ((number, read_intervals(part)) for number, part in cut(rows, config.shard_size))
            halved = missing_on_devices(shards, parts, len(amounts.shards), job.recipe, job.devices)
        embedder = job.recipe.embedder(job.model, job.reference, job.device)
        with closing(pooled_blocks(job, embedder, shards)) as made:
            if vector_format(config.output) == "parquet":
                write_parquet(config.output, REGION_COLUMNS, embedder.width, made, folder=shards.folder)
            else:
                write_npz(config.output, pooled_arrays(embedder.width, made), folder=shards.folder)
    say_halved(halved or embedder.halved, " bases")
    return embedder.width


def pooled_blocks(job: Job, embedder: Embedder, shards: Shards) -> Generator[VectorBlock]:
    """A shard's records at a time, under a bar."""
    rows, size = job.rows, job.config.shard_size
    read = [len(read_intervals(part)) for _, part in cut(rows, size)]
    done = sum(read[number] for number in shards.done())
    with progress_bar() as bar:  # it ends before the file stands: a reader that has gone is told then
        task = bar.add_task("embedding", total=sum(read), completed=done, note="regions")
        work: ShardWorker = job.recipe.worker(embedder, partial(bar.advance, task))
        for part, arrays in in_order(shards, cut(rows, size), lambda part: work(read_intervals(part))):
            vectors = np.full((len(part), embedder.width), np.nan, dtype=np.float32)
            vectors[[row.is_read for row in part]] = arrays["embedding"]
            yield VectorBlock(region_columns(part), vectors)
    shards.publishing()


def pooled_arrays(width: int, blocks: Iterator[VectorBlock]) -> Iterator[tuple[str, np.ndarray]]:
    """The columns, and ``embedding``, (records, width)."""
    every = list(blocks)
    for name, kind in REGION_COLUMNS.items():
        yield name, np.array([value for block in every for value in block.columns[name]], dtype=kind)
    yield "embedding", np.concatenate([np.empty((0, width), np.float32), *(block.vectors for block in every)])


def write_bases(job: Job, facts: Callable[[], Facts]) -> int:
    """A vector per base of every region that is read; returns how many numbers it has."""
    config = job.config
    width = vector_width(job.model.backbone.config)
    values = BaseValues.of(read_intervals(job.rows), width, config.shard_size)
    with kept(config, facts, values.amounts) as shards:
        assert shards is not None, "stdout was refused"
        recipe = replace(job.recipe, folder=shards.folder)

        def here(progress: Progress) -> ShardWorker:
            return recipe.worker(recipe.embedder(job.model, job.reference, job.device), progress)

        values.work_out(shards, recipe, job.devices, here, title="embedding")
        shards.publishing()
        with closing(values.written(shards)) as found:
            pieces = numbered(job.rows, found)
            if vector_format(config.output) == "parquet":
                made = base_blocks(pieces, job.reference)
                write_parquet(config.output, BASE_COLUMNS, width, made, folder=shards.folder)
            else:
                write_npz(config.output, base_arrays(job.rows, pieces), folder=shards.folder)
    return width


class BasePiece(NamedTuple):
    """Vectors of neighbouring bases of one region, in the direction in which it is read."""

    number: int  # of the record
    row: Row
    start: int  # of the first, counted in that direction
    vectors: Hidden


def numbered(rows: Sequence[Row], pieces: Iterable[tuple[Interval, int, Hidden]]) -> Iterator[BasePiece]:
    """Pieces as they are kept, of all records that are read, with those."""
    read = ((number, row) for number, row in enumerate(rows) if row.is_read)
    for _, start, vectors in pieces:
        if start == 0:
            number, row = next(read)
        yield BasePiece(number, row, start, vectors)


def base_blocks(pieces: Iterable[BasePiece], reference: Reference) -> Iterator[VectorBlock]:
    """One row per base."""
    for number, row, start, vectors in pieces:
        interval = row.interval
        end = start + len(vectors)
        if interval.strand == "-":
            there = Interval(interval.contig, interval.end - end, interval.end - start, "-")
            positions = list(range(there.end, there.start, -1))
        else:
            there = Interval(interval.contig, interval.start + start, interval.start + end, interval.strand)
            positions = list(range(there.start + 1, there.end + 1))
        columns: dict[str, list[Any]] = {
            "region": [number] * len(vectors),
            "name": [row.region.record.name] * len(vectors),
            "contig": [interval.contig] * len(vectors),
            "pos": positions,
            "base": list(reference.fetch(there).tobytes().decode("ascii")),
        }
        yield VectorBlock(columns, vectors)


def base_arrays(rows: Sequence[Row], pieces: Iterable[BasePiece]) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of the records, and an array (bases, width) for each that is read, by its number from 0."""
    for name, values in region_columns(rows).items():
        yield name, np.array(values, dtype=REGION_COLUMNS[name])
    for number, region in groupby(pieces, key=lambda piece: piece.number):
        yield str(number), np.concatenate([piece.vectors for piece in region])
