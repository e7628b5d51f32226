"""Tracks and regions as `finetune tracks` is given them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from genomamba.data.bigwig import BigWig
from genomamba.data.reference import Reference
from genomamba.data.track_windows import Missing, TrackReader, TrackSummary, summarise_tracks
from genomamba.data.windows import merged, sequenced_regions, subtract
from genomamba.errors import LabelError, RegionError
from genomamba.genome.interval import Interval
from genomamba.pipelines.common_options import ContigAliases
from genomamba.pipelines.pretraining_splits import pretraining_splits
from genomamba.progress import progress_bar

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_tracks import Config


class TrackData(NamedTuple):
    """What a model of tracks is trained and measured on.

    Attributes:
        names: of the tracks, in the order of the reader's files.
        reader: of sequence and values.
        train: what the training regions hold.
        valid: what the validation regions hold.
        held_out: the sequenced parts of the validation regions, and where there are any of the test regions.
    """

    names: list[str]
    reader: TrackReader
    train: TrackSummary
    valid: TrackSummary
    held_out: dict[str, list[Interval]]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Of each track, for the provenance."""
        return {
            name: {
                "path": file.path,
                "sha256": file.fingerprint,
                **{what: getattr(self.train, what)[track].item() for what in ("valued", "counted", "mean", "spread")},
            }
            for track, (name, file) in enumerate(zip(self.names, self.reader.files, strict=True))
        }


def load_tracks(config: Config, reference: Reference, files: Mapping[str, str]) -> TrackData:
    """Opens every file, and reads through what the splits have in it.

    Raises:
        LabelError: no bigWig, a value that cannot be, or none, or only one, to learn from.
        RegionError: regions or contigs that are not the reference's, or no sequence is left to train or validate on.
    """
    reader = open_tracks(files, reference, contig_aliases=config.contig_aliases, missing=config.missing)
    splits = pretraining_splits(config, reference)
    regions = {
        "train": subtract(merged(splits.include), [*splits.valid, *splits.test]),
        "valid": merged(splits.valid),
        "test": merged(splits.test),
    }
    regions = {name: sequenced_regions(reference, own) for name, own in regions.items()}
    for name, what in (("train", "train"), ("valid", "validate")):
        if not regions[name]:
            raise RegionError(f"no sequence is left to {what} on", "change --regions, --valid or --test", field=name)
    summaries = read_through(reader, regions, config.window, counts=config.loss == "poisson")
    _check(files, summaries["train"], summaries["valid"])
    held_out = {name: regions[name] for name in ("valid", "test") if regions[name]}
    return TrackData(list(files), reader, summaries["train"], summaries["valid"], held_out)


def open_tracks(
    files: Mapping[str, str], reference: Reference, *, contig_aliases: ContigAliases, missing: Missing
) -> TrackReader:
    """A reader of files by name; raises as `BigWig` does."""
    opened = [
        BigWig(
            *(path, reference.contigs),
            aliases="auto" if contig_aliases == "auto" else None,
            reference=reference.path,
        )
        for path in files.values()
    ]
    return TrackReader(reference, opened, missing)


def read_through(
    reader: TrackReader, regions: Mapping[str, Sequence[Interval]], window: int, *, counts: bool
) -> dict[str, TrackSummary]:
    """Of each split; arguments and errors as of `summarise_tracks`."""
    with progress_bar() as bar:
        task = bar.add_task(
            "reading tracks", total=sum(r.length for own in regions.values() for r in own), note="bases"
        )
        return {
            name: summarise_tracks(reader, own, window, counts=counts, progress=lambda bases: bar.advance(task, bases))
            for name, own in regions.items()
        }


def _check(files: Mapping[str, str], train: TrackSummary, valid: TrackSummary) -> None:
    for track, (name, path) in enumerate(files.items()):
        for split, summary in (("training", train), ("validation", valid)):
            if not summary.counted[track]:
                raise LabelError(
                    f"it has no value in the {split} regions",
                    "give other regions, or --missing zero where a missing value is 0",
                    file=path,
                    field="tracks",
                    value=name,
                )
        if train.lowest[track] == train.highest[track]:
            raise LabelError(
                f"all of its values in the training regions are {train.mean[track]:g}",
                "give a track that has something to learn",
                file=path,
                field="tracks",
                value=name,
            )


def say_tracks(data: TrackData, missing: Missing) -> None:
    """How much of each track there is, on stderr."""
    what = {"skip": "left out (--missing zero reads them as 0)", "zero": "read as 0 (--missing skip leaves them out)"}
    shares = data.train.valued / max(data.train.bases, 1)
    for name, share in zip(data.names, shares.tolist(), strict=True):
        print(f"{name}: a value at {share:.1%} of {data.train.bases:,} training bases", file=sys.stderr)
    if np.any(shares < 1):
        print(f"bases without a value are {what[missing]}", file=sys.stderr)
