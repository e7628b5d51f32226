"""Shards of commands that read a model along regions: what a run goes on only with, and numbers for every base."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from genomamba.data.bed import PlacedRegion
from genomamba.data.references import Genome
from genomamba.data.tracks import TrackPiece
from genomamba.files import unfinished_file
from genomamba.genome.interval import Interval
from genomamba.model.folder import AnyModel, described, loaded_fingerprint
from genomamba.pipelines.shard_worker import Recipe, ShardWorker
from genomamba.pipelines.sharded import Amounts, in_order, missing_on_devices, surroundings
from genomamba.pipelines.shards import Facts, Shards, damaged
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import OutOfMemoryError
from genomamba.scoring.tracks import TrackSpool

BASES, NUMBERS = 1 << 20, 1 << 24  # of a shard, unless it is a single region: what a run that is killed may lose
SMALLER = "give a smaller one"
Progress = Callable[[int], object]
Rows = Iterable[tuple[Interval, int, np.ndarray]]  # as of `TrackSpool.rows`


def reading_facts(
    command: str,
    config: Any,
    decisive: Sequence[str],
    placed: Sequence[PlacedRegion],
    reference: Genome,
    model: AnyModel,
    device: torch.device,
    **more: int | str,
) -> Facts:
    """Everything that has a say in the output's bytes.

    Args:
        command: its name.
        config: its options.
        decisive: names of those that have a say.
        placed: the regions, whatever file or options they come from.
        reference: the genome.
        model: as loaded.
        device: where it runs.
        more: what was found out from options.
    """
    return {
        "command": command,
        "regions": regions_fingerprint(placed),
        "reference": reference.fingerprint,
        "weights": loaded_fingerprint(model),
        "configuration": json.dumps(described(model)),
        **surroundings(device),
        **{name: getattr(config, name) for name in decisive},
        **more,
    }


def regions_fingerprint(placed: Sequence[PlacedRegion]) -> str:
    """SHA-256 of all that is known of them but their lines."""
    digest = hashlib.sha256()
    for region in placed:
        known = (region.record.name, region.record.interval, *region[1:])
        digest.update(f"{known}\n".encode())
    return digest.hexdigest()


class BaseValues(NamedTuple):
    """Numbers for every base of regions, which are worked out shard by shard, whole regions each.

    A shard's numbers are a file, which may be longer than memory.

    Attributes:
        shards: of neighbouring regions; a long one is a shard of its own.
        width: numbers per base.
    """

    shards: list[list[Interval]]
    width: int

    @classmethod
    def of(cls, regions: Sequence[Interval], width: int, most: int) -> BaseValues:
        """Cut into shards of ``most`` regions, and fewer of long ones."""
        found: list[list[Interval]] = []
        room = 0
        for region in regions:
            room -= region.length
            if not found or room < 0 or len(found[-1]) == most:
                found.append([])
                room = min(BASES, NUMBERS // width) - region.length
            found[-1].append(region)
        return cls(found, width)

    @property
    def amounts(self) -> Amounts:
        return Amounts([sum(region.length for region in shard) for shard in self.shards], "bases read")

    def work_out(
        self,
        shards: Shards,
        recipe: Recipe,
        devices: Sequence[str],
        here: Callable[[Progress], ShardWorker],
        *,
        title: str,
        passes: int = 1,
    ) -> None:
        """Has every shard worked out that is not done.

        Args:
            shards: where they are kept.
            recipe: for other processes, where there are several devices.
            devices: as torch calls them.
            here: makes the same for this process, given what to call with so many bases done.
            title: of the bar.
            passes: how often each base is read.
        """
        for number in sorted(shards.done()):  # before what takes long
            check_size(shards.load(number), self.shards[number], self.width)
        if len(devices) > 1:
            missing_on_devices(shards, enumerate(self.shards), len(self.shards), recipe, devices)
            return
        bases = self.amounts.shards
        done = passes * sum(bases[number] for number in shards.done())
        with progress_bar() as bar:
            task = bar.add_task(title, total=passes * sum(bases), completed=done, note="bases")
            for _ in in_order(shards, enumerate(self.shards), here(lambda count: bar.advance(task, count))):
                pass

    def written(self, shards: Shards, name: str = "") -> Generator[tuple[Interval, int, np.ndarray]]:
        """The rows, under a bar; to be closed by whoever stops before the last.

        The bar ends before the file stands that they are written to: a reader that has gone is told then.
        """
        with progress_bar() as bar:
            task = bar.add_task(f"writing{name}", total=sum(self.amounts.shards), note="bases")
            for row in self.rows(shards):
                yield row
                bar.advance(task, len(row[2]))

    def rows(self, shards: Shards) -> Iterator[tuple[Interval, int, np.ndarray]]:
        """As `TrackSpool.rows`, of all regions in order, once all is done.

        Raises:
            OutputError: a file is damaged.
        """
        for number, regions in enumerate(self.shards):
            yield from spooled(shards.load(number), regions, self.width)


def check_size(path: Path | None, regions: Sequence[Interval], width: int) -> Path:
    """The path of one shard's file.

    Raises:
        OutputError: it has another size than it was written with.
    """
    assert isinstance(path, Path)
    if path.stat().st_size != 4 * width * sum(region.length for region in regions):
        raise damaged(path, "its size is another")
    return path


def spooled(path: Path | None, regions: Sequence[Interval], width: int) -> Iterator[tuple[Interval, int, np.ndarray]]:
    """The rows of one shard's file; raises OutputError as `check_size` does."""
    with check_size(path, regions, width).open("rb") as file:
        yield from TrackSpool(file, width, regions).rows()


@contextmanager
def fitting_memory(window: int, remedy: str = SMALLER) -> Iterator[None]:
    """Where the device's memory does not hold what the model reads at once, that is an error of the user's.

    Args:
        window: bases that it reads at once.
        remedy: what the user can do.

    Raises:
        OutOfMemoryError: it does not hold them.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError("so many bases do not fit the memory", remedy, field="window", value=window) from error


class SpoolWorker:
    """Turns a shard's regions into the path of a file of their numbers.

    Args:
        folder: where it is written.
        width: numbers per base.
        write: puts one region's numbers into the spool.
        window: bases that the model reads at once for that.
        remedy: see `fitting_memory`.
    """

    halved = None  # it has no batches

    def __init__(
        self,
        folder: Path,
        width: int,
        write: Callable[[TrackSpool, Interval], None],
        *,
        window: int,
        remedy: str = SMALLER,
    ) -> None:
        self._folder, self._width, self._write = folder, width, write
        self._window, self._remedy = window, remedy

    def __call__(self, regions: Sequence[Interval]) -> Path:
        with fitting_memory(self._window, self._remedy), unfinished_file(self._folder) as file:
            spool = TrackSpool(file, self._width)
            for region in regions:
                self._write(spool, region)
        return Path(file.name)


def pieces_of(rows: Rows, track: int) -> Iterator[TrackPiece]:
    """Of one track."""
    for region, start, numbers in rows:
        yield TrackPiece(region.contig, region.start + start, numbers[:, track])
