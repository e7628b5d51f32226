"""Figures of a model of tracks, as `predict` would write them, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table

from genomamba.data.track_windows import TrackReader
from genomamba.genome.interval import Interval
from genomamba.model.sequence_heads import TokenModel
from genomamba.pipelines.reading_windows import usual_windows
from genomamba.progress import progress_bar
from genomamba.scoring.track_figures import TrackSums, measure_tracks
from genomamba.scoring.tracks import track_embedder

Figures = dict[str, list[dict[str, Any]]]


def measure(
    model: TokenModel,
    reader: TrackReader,
    regions: Mapping[str, Sequence[Interval]],
    *,
    mean: NDArray[np.float64],
    window: int,
    device: torch.device,
    tracks: Sequence[str] | None = None,
) -> Figures:
    """Figures of each split: a dictionary per track, as `TrackFigure` has them.

    Args:
        model: moved to ``device``.
        reader: of what was measured; a file per track.
        regions: of each split.
        mean: of each track in training, (T,).
        window: that the model was trained on.
        device: where to run.
        tracks: those of the model that the reader has; all when not given.
    """
    names = model.tracks if tracks is None else tuple(tracks)
    reading = usual_windows(window, is_causal=model.config.is_causal)
    embedder = track_embedder(model, reader.reference, **reading._asdict(), device=device)
    found = {}
    with progress_bar() as bar:
        total = sum(region.length for own in regions.values() for region in own)
        task = bar.add_task("measuring", total=total, note="bases")
        for name, own in regions.items():
            sums = TrackSums(names, torch.from_numpy(mean), model.link)
            measure_tracks(model, embedder, reader, own, sums, lambda bases: bar.advance(task, bases))
            found[name] = [figure._asdict() for figure in sums.figures()]
    return found


UNITS = {"mse": "squared error", "poisson": "Poisson loss"}


def cells(split: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table, as text."""

    def number(value: float | None) -> str:
        return "NA" if value is None else f"{value:.4g}"

    pearson = "NA" if figure["pearson"] is None else f"{figure['pearson']:.3f}"
    return (
        *(split, figure["track"], f"{figure['bases']:,}", pearson),
        *(number(figure["loss"]), number(figure["baseline"])),
    )


def columns(loss: str) -> tuple[str, ...]:
    """What the table's columns are called."""
    return ("split", "track", "bases", "Pearson r", UNITS[loss], "of the training mean")


def figures_table(figures: Mapping[str, Sequence[Mapping[str, Any]]], loss: str) -> Table:
    """What is printed: a row per split and track."""
    made = Table(box=SIMPLE)
    for place, name in enumerate(columns(loss)):
        made.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for split, own in figures.items():
        for figure in own:
            made.add_row(*cells(split, figure))
    return made
