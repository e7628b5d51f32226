"""What `predict` makes of a model of tracks: a file per track, from numbers that are worked out shard by shard."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from genomamba.data.reference import Reference
from genomamba.data.tracks import track_paths, write_track
from genomamba.genome.interval import Interval
from genomamba.model.folder import load_model
from genomamba.model.sequence_heads import TokenModel
from genomamba.pipelines.chosen_regions import chosen_regions, side_by_side
from genomamba.pipelines.reading_windows import ReadingWindows, reading_windows
from genomamba.pipelines.region_rows import region_rows, say_statuses
from genomamba.pipelines.region_shards import BaseValues, Progress, Rows, SpoolWorker, pieces_of, reading_facts, spooled
from genomamba.pipelines.sharded import kept
from genomamba.progress import progress_bar
from genomamba.scoring.tracks import TrackSpool, predict_tracks, track_embedder

if TYPE_CHECKING:
    from genomamba.pipelines.predict import Config

DECISIVE = ("shard_size", "rna")  # options that have a say in the files, besides the inputs and the windows


@dataclass(frozen=True)
class TrackRecipe:
    """See `Recipe`; files are written in ``folder``."""

    model: str
    reference: str
    rna: bool
    windows: ReadingWindows
    folder: Path

    def make(self, device: torch.device) -> SpoolWorker:
        model = load_model(self.model)
        assert isinstance(model, TokenModel)
        reference = Reference.open(self.reference, rna=self.rna)
        return track_worker(model, reference, self.windows, self.folder, device, lambda bases: None)


def predict_to_tracks(config: Config, model: TokenModel, reference: Reference, devices: list[str]) -> int:
    """The files."""
    device = torch.device(devices[0])
    windows = reading_windows(config, is_causal=model.config.is_causal)
    placed = chosen_regions(config, reference)
    rows = region_rows(placed, reference)
    intervals = side_by_side([row.region for row in rows if row.is_read], reference, config.regions)
    values = BaseValues.of(intervals, len(model.tracks), config.shard_size)
    of_windows = windows._asdict()
    facts = partial(reading_facts, "predict", config, DECISIVE, placed, reference, model, device, **of_windows)
    paths = track_paths(config.output, model.tracks)
    with kept(config, facts, values.amounts) as shards:
        if shards is None:
            print_track(model, reference, windows, device, values)
        else:
            recipe = TrackRecipe(config.model, config.reference, config.rna, windows, shards.folder)
            here = partial(track_worker, model, reference, windows, shards.folder, device)
            values.work_out(shards, recipe, devices, here, title="predicting")
            shards.publishing()
            for track, path in enumerate(paths):
                with closing(values.written(shards, f" {model.tracks[track]}")) as found:
                    write_track(path, reference.contigs, pieces_of(found, track), folder=shards.folder)
    print(f"{config.output}: {len(model.tracks)} tracks of {len(rows):,} regions", file=sys.stderr)
    say_statuses(rows)
    return 0


def track_worker(
    model: TokenModel,
    reference: Reference,
    windows: ReadingWindows,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> SpoolWorker:
    """Regions to files of all tracks; ``progress`` is called with the number of bases done."""
    embedder = track_embedder(model, reference, **windows._asdict(), device=device)

    def write(spool: TrackSpool, region: Interval) -> None:
        def pieces() -> Iterator[np.ndarray]:
            for piece in predict_tracks(model, embedder, region):
                yield piece
                progress(len(piece))

        spool.write(region, pieces(), backwards=region.strand == "-")

    return SpoolWorker(folder, len(model.tracks), write, window=windows.window)


def print_track(
    model: TokenModel, reference: Reference, windows: ReadingWindows, device: torch.device, values: BaseValues
) -> None:
    """The only track, on stdout, as it comes."""
    with progress_bar() as bar, tempfile.TemporaryDirectory() as folder:
        task = bar.add_task("predicting", total=sum(values.amounts.shards), note="bases")
        work = track_worker(model, reference, windows, Path(folder), device, partial(bar.advance, task))

        def rows() -> Rows:
            for regions in values.shards:
                path = work(regions)
                yield from spooled(path, regions, values.width)
                path.unlink()

        write_track("-", reference.contigs, pieces_of(rows(), 0))
