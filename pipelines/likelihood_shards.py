"""What `likelihood` works out shard by shard, here or in other processes, and how the file is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from genomamba.data.bed import PlacedRegion
from genomamba.data.datasets import WindowReader
from genomamba.data.reference import Reference
from genomamba.data.tracks import TrackPiece, no_value, table_lines, track_format, write_text, write_track
from genomamba.errors import CheckpointError
from genomamba.genome.interval import Interval
from genomamba.interop.loading import load_any_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.folder import AnyModel
from genomamba.pipelines.reading_windows import ReadingWindows
from genomamba.pipelines.region_shards import (
    SMALLER,
    BaseValues,
    Progress,
    SpoolWorker,
    fitting_memory,
    pieces_of,
    reading_facts,
)
from genomamba.pipelines.sharded import kept
from genomamba.pipelines.shards import Facts, Shards
from genomamba.progress import progress_bar
from genomamba.scoring.likelihood import LikelihoodTrack, StrandBits
from genomamba.scoring.masked_bits import MaskedBits
from genomamba.scoring.streaming import stream_bits
from genomamba.scoring.tracks import TrackSpool

if TYPE_CHECKING:
    from genomamba.pipelines.likelihood import Config

# Options that have a say in the bits, besides the inputs and the windows.
DECISIVE = ("both_strands", "hide_every", "batch_size", "shard_size", "rna")


def language_model(model: AnyModel, path: str) -> CausalLM | MaskedLM:
    """The model; raises CheckpointError where it is none."""
    if isinstance(model, CausalLM | MaskedLM):
        return model
    raise CheckpointError("it is no language model", "give a run folder of `pretrain`", file=path)


@dataclass(frozen=True)
class BitsRecipe:
    """What gives the bits of a region; see `Recipe`.

    Attributes:
        model: anyone's language model.
        reference: FASTA.
        rna: see `Reference.open`.
        windows: bases at once, and those that neighbours share; see `MaskedBits` and `stream_bits`.
        hide_every: see `MaskedBits`.
        batch_size: see `MaskedBits`.
        both_strands: see `LikelihoodTrack`.
        folder: where files are written.
    """

    model: str
    reference: str
    rna: bool
    windows: ReadingWindows
    hide_every: int
    batch_size: int
    both_strands: bool
    folder: Path

    def make(self, device: torch.device) -> SpoolWorker:
        model = language_model(load_any_model(self.model), self.model)
        reference = Reference.open(self.reference, rna=self.rna)
        return self.worker(model, reference, device, lambda bases: None)

    def worker(
        self, model: CausalLM | MaskedLM, reference: Reference, device: torch.device, progress: Progress
    ) -> SpoolWorker:
        """``progress`` is called with the number of bases done, once per strand."""
        track = self.track(model, reference, device, progress)

        def write(spool: TrackSpool, region: Interval) -> None:
            spool.write(region, (piece.values[:, None] for piece in track(region)))

        return SpoolWorker(self.folder, 1, write, window=self.windows.window, remedy=remedy_for(model))

    def track(
        self, model: CausalLM | MaskedLM, reference: Reference, device: torch.device, progress: Progress
    ) -> LikelihoodTrack:
        """Of a model that is loaded already."""
        model, reader = model.to(device), WindowReader(reference, softmask_weight=1.0)
        bits: StrandBits
        if isinstance(model, CausalLM):
            bits = partial(stream_bits, model, reader, segment=self.windows.window, device=device)
        else:
            bits = MaskedBits(
                *(model, reader),
                window=self.windows.window,
                overlap=self.windows.overlap,
                hide_every=self.hide_every,
                batch_size=self.batch_size,
                device=device,
            )
        return LikelihoodTrack(bits, both_strands=self.both_strands, progress=progress)


def remedy_for(model: CausalLM | MaskedLM) -> str:
    """Where a window does not fit the memory."""
    return SMALLER if isinstance(model, CausalLM) else f"{SMALLER}, or a smaller --batch-size"


class Count:
    """Bases with a value, and the sum of the values, of pieces that pass through."""

    bases = 0
    bits = 0.0

    def __call__(self, pieces: Iterable[TrackPiece]) -> Iterator[TrackPiece]:
        for piece in pieces:
            self.bases += int(np.count_nonzero(~np.isnan(piece.values)))
            self.bits += float(np.nansum(piece.values, dtype=np.float64))
            yield piece


class Job(NamedTuple):
    """What is to be read, by what, and where."""

    config: Config
    model: CausalLM | MaskedLM
    reference: Reference
    intervals: list[Interval]
    windows: ReadingWindows
    devices: list[str]

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return torch.device(self.devices[0])

    @property
    def strands(self) -> int:
        """How often each base is read."""
        return 2 if self.config.both_strands else 1

    def recipe(self, folder: Path) -> BitsRecipe:
        config = self.config
        where = (config.model, config.reference, config.rna, self.windows)
        return BitsRecipe(*where, config.hide_every, config.batch_size, config.both_strands, folder)


def facts(job: Job, placed: Sequence[PlacedRegion]) -> Facts:
    """Everything that has a say in the output's bytes."""
    windows = job.windows._asdict()
    return reading_facts("likelihood", job.config, DECISIVE, placed, job.reference, job.model, job.device, **windows)


def write_bits(job: Job, facts: Callable[[], Facts]) -> Count:
    """Shard by shard into the output, or to stdout as they come.

    Raises:
        OutputError: it cannot be written, or would be a bigWig without a value.
    """
    config, count = job.config, Count()
    if config.output == "-":
        with fitting_memory(job.windows.window, remedy_for(job.model)), progress_bar() as bar:
            task = bar.add_task("reading", total=job.strands * sum(each.length for each in job.intervals), note="bases")
            track = job.recipe(Path()).track(job.model, job.reference, job.device, partial(bar.advance, task))
            write_track("-", job.reference.contigs, count(piece for each in job.intervals for piece in track(each)))
        return count
    values = BaseValues.of(job.intervals, 1, config.shard_size)
    with kept(config, facts, values.amounts) as shards:
        assert shards is not None, "it is a file"
        recipe = job.recipe(shards.folder)
        here = partial(recipe.worker, job.model, job.reference, job.device)
        values.work_out(shards, recipe, job.devices, here, title="reading", passes=job.strands)
        empty = track_format(config.output) == "bigwig" and not _any_value(values, shards)
        if not empty:
            _write(job, values, shards, count)
    if empty:  # not before now: more reading would not help, so nothing is kept
        raise no_value(config.output)
    return count


def _any_value(values: BaseValues, shards: Shards) -> bool:
    return any(not np.isnan(numbers).all() for _, _, numbers in values.rows(shards))


def _write(job: Job, values: BaseValues, shards: Shards, count: Count) -> None:
    shards.publishing()
    output, folder = job.config.output, shards.folder
    with closing(values.written(shards)) as rows:
        pieces = count(pieces_of(rows, 0))
        if track_format(output) == "tsv":
            write_text(output, table_lines(pieces, job.reference, "bits"), folder=folder)
        else:
            write_track(output, job.reference.contigs, pieces, folder=folder)
