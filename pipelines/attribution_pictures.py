"""Pictures of saturation mutagenesis: a heat map of every substitution, and a logo of what each base is worth."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genomamba.errors import ConfigError
from genomamba.genome.interval import Interval

FORMATS = (".png", ".svg", ".pdf")
BASES_PER_LINE = 100
LONGEST_LOGO = 1_000  # letters of more would be a pixel wide, or the picture taller than a page
_MOST_LINES = 20  # of a heat map; longer regions get longer lines
_MOST_LABELS = 6  # of positions in a line
_STEPS = [times * 10**power for power in range(12) for times in (1, 2, 5)]  # of bases between them
_LETTER = 0.1  # inches of height for each letter of an upright label, with some room
_COLOURS = {"A": "#109648", "C": "#255C99", "G": "#F7B32B", "T": "#D62839"}


class Attribution(NamedTuple):
    """What is drawn."""

    region: Interval
    sequence: str  # upper case
    scores: NDArray[np.float64]  # (L, 4), by A, C, G, T; NaN where there is none
    unit: str  # of the scores
    worth: str  # of a base: what its substitutions cost
    is_change: bool  # zero means none; otherwise scores are probabilities


def check_picture(path: str, *, option: str, bases: int | None = None) -> None:
    """Raises ConfigError where ``path`` names no format of pictures, or a logo of so many bases cannot be read."""
    if Path(path).suffix.lower() not in FORMATS:
        raise ConfigError("it names no format of pictures", f"use {', '.join(FORMATS)}", field=option, value=path)
    if bases is not None and bases > LONGEST_LOGO:
        raise ConfigError(
            f"a logo of {bases:,} bases cannot be read",
            f"give a region of at most {LONGEST_LOGO:,}, or leave it out",
            field=option,
            value=path,
        )


def heat_map(attribution: Attribution) -> Figure:
    """Substitutions as colours: one row per alternative base; a dot marks the reference's own."""
    region, sequence, scores, unit, _, is_change = attribution
    per_line = max(BASES_PER_LINE, math.ceil(region.length / _MOST_LINES))
    norm = _norm(scores, is_change)
    colours = colormaps["RdBu" if is_change else "viridis"].with_extremes(bad="#dddddd")
    figure, lines = _lines(region, per_line, height=0.95)
    for axes, low, high in lines:
        image = axes.imshow(
            scores[low:high].T,
            cmap=colours,
            norm=norm,
            aspect="auto",
            interpolation="nearest",
            extent=(region.start + low + 0.5, region.start + high + 0.5, 3.5, -0.5),
        )
        axes.set_yticks(range(4), list("ACGT"))
        if per_line == BASES_PER_LINE:
            own = [(at, "ACGT".index(sequence[at])) for at in range(low, high) if sequence[at] in "ACGT"]
            axes.scatter(
                [region.start + at + 1 for at, _ in own], [row for _, row in own], s=3, color="black", linewidths=0
            )
    bar = figure.colorbar(image, ax=figure.axes, fraction=0.03, pad=0.015)
    bar.set_label(_upright(unit, figure), fontsize=9)
    return figure


def logo(attribution: Attribution) -> Figure:
    """Each base as tall as its substitutions are costly on average.

    Of a classifier, as their mean probability is above or below the region's median: from 0 on, where all of a region
    is likely, all letters would be of one height.
    """
    import logomaker
    import pandas

    region, sequence, scores, _, label, is_change = attribution
    known = ~np.isnan(scores)
    mean = np.where(known, scores, 0).sum(1) / np.maximum(known.sum(1), 1)
    worth = -mean
    if not is_change:
        middle = float(np.median(mean[known.any(1)])) if known.any() else 0.0
        worth = np.where(known.any(1), mean - middle, 0.0)
        label = f"{label}, less the region's median, {middle:.3g}"
    heights = pandas.DataFrame(0.0, index=range(region.start + 1, region.end + 1), columns=list("ACGT"))
    for at, base in enumerate(sequence):
        if base in "ACGT":
            heights.loc[region.start + 1 + at, base] = worth[at]
    bottom, top = min(0.0, float(worth.min())), max(0.0, float(worth.max()))
    room = 0.05 * ((top - bottom) or 1.0)
    figure, lines = _lines(region, BASES_PER_LINE, height=1.3)
    for axes, low, high in lines:
        if (letters := heights.iloc[low:high]).any(axis=None):
            logomaker.Logo(letters, ax=axes, color_scheme=_COLOURS, flip_below=False)
        axes.set_ylim(bottom - room, top + room)
    figure.supylabel(_upright(label, figure), fontsize=9)
    return figure


def _upright(label: str, figure: Figure) -> str:
    """In as many lines as it takes beside the axes of a low picture."""
    return textwrap.fill(label, max(12, int(figure.get_figheight() / _LETTER)))


def save(figure: Figure, path: Path, name: str) -> None:
    """Writes it to ``path``, in the format that the extension of ``name`` asks for."""
    figure.savefig(path, format=Path(name).suffix.lower()[1:], dpi=150)


def _norm(scores: np.ndarray, is_change: bool) -> Normalize:
    known = scores[~np.isnan(scores)]
    if not is_change:  # all there is: from 0 to 1, what is likely everywhere would be of one colour
        return Normalize(known.min(), known.max()) if known.size and np.ptp(known) else Normalize(0, 1)
    known = np.abs(known)
    # The 99.5th percentile, so that one extreme substitution does not bleach the others.
    limit = float(np.quantile(known, 0.995)) if known.size else 0.0
    return TwoSlopeNorm(0, -(limit or 1.0), limit or 1.0)


def _lines(region: Interval, per_line: int, *, height: float) -> tuple[Figure, Iterator[tuple[Axes, int, int]]]:
    """One pair of axes per line of bases, all of one scale, titled with the region and 1-based positions."""
    count = math.ceil(region.length / per_line)
    width = min(per_line, region.length)
    figure = Figure(figsize=(12, 0.9 + height * count), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(str(region), fontsize=10)
    step = next(s for s in _STEPS if s * _MOST_LABELS >= width)
    every = figure.subplots(count, 1, squeeze=False)[:, 0]

    def each() -> Iterator[tuple[Axes, int, int]]:
        for line, axes in enumerate(every):
            low = line * per_line
            yield axes, low, min(low + per_line, region.length)
            axes.set_xlim(region.start + low + 0.5, region.start + low + width + 0.5)
            positions = range(region.start + low + 1, region.start + min(low + per_line, region.length) + 1)
            shown = [position for position in positions if position % step == 0] or [positions[0]]
            axes.set_xticks(shown, map(str, shown))
            axes.tick_params(labelsize=7)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)

    return figure, each()
