"""How well predicted tracks follow measured ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.data.track_windows import TrackReader
from genomamba.genome.interval import Interval
from genomamba.model.config import Link
from genomamba.model.sequence_heads import TokenModel
from genomamba.scoring.embeddings import Embedder
from genomamba.scoring.tracks import predict_tracks


def base_loss(predictor: Tensor, target: Tensor, link: Link) -> Tensor:
    """The loss of each base, whatever the shape.

    Args:
        predictor: the output, or under ``log`` its log.
        target: what was measured.
        link: ``identity``: (output - target)²; ``log``: output - target · log output, in nats, which is a Poisson
            model's negative log-likelihood but for log target!, which no model has a say in.
    """
    return predictor.exp() - target * predictor if link == "log" else (predictor - target).square()


class TrackFigure(NamedTuple):
    """One track; None where a figure is not defined.

    Attributes:
        bases: that count.
        pearson: correlation of what was predicted and what was measured, over these bases.
        loss: mean of `base_loss`.
        baseline: the same of predicting the training regions' mean everywhere.
    """

    track: str
    bases: int
    pearson: float | None
    loss: float | None
    baseline: float | None


class TrackSums:
    """Sums over bases from which the figures follow; memory does not grow with their number.

    Args:
        tracks: names.
        mean: of each track in the training regions, (T,), fp64.
        link: of the model.
    """

    def __init__(self, tracks: Sequence[str], mean: Tensor, link: Link) -> None:
        self.tracks, self.mean, self.link = tuple(tracks), mean.double().cpu(), link
        zeros = torch.zeros(len(tracks), dtype=torch.float64)
        self._count, self._loss, self._baseline = zeros.clone(), zeros.clone(), zeros.clone()
        self._moments = torch.zeros(5, len(tracks), dtype=torch.float64)
        self._range = torch.stack([zeros + torch.inf, zeros - torch.inf] * 2)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Of some bases: (..., T) each, in the tracks' unit; targets are NaN where a base does not count."""
        output, target = (tensor.detach().cpu().double().flatten(0, -2) for tensor in (output, target))
        counts = ~target.isnan()
        self._count += counts.sum(0)

        def summed(of: Tensor) -> Tensor:
            return torch.where(counts, of, 0).sum(0)

        self._loss += summed(base_loss(self._predictor(output), target, self.link))
        self._baseline += summed(base_loss(self._predictor(self.mean), target, self.link))
        # Moments about the training mean: about 0 their differences would lose the digits that matter.
        x, y = output - self.mean, target - self.mean
        self._moments += torch.stack([summed(each) for each in (x, y, x * x, y * y, x * y)])
        for row, each in ((0, output), (2, target)):
            low, high = torch.where(counts, each, torch.inf), torch.where(counts, each, -torch.inf)
            if len(each):
                self._range[row] = self._range[row].minimum(low.amin(0))
                self._range[row + 1] = self._range[row + 1].maximum(high.amax(0))

    def figures(self) -> list[TrackFigure]:
        """Of what was added."""
        n = self._count.clamp_min(1)
        mx, my, xx, yy, xy = self._moments / n
        pearson = (xy - mx * my) / ((xx - mx * mx) * (yy - my * my)).sqrt()
        low_x, high_x, low_y, high_y = self._range
        defined = (high_x > low_x) & (high_y > low_y) & pearson.isfinite()
        rows = zip(self.tracks, self._count, pearson, defined, self._loss / n, self._baseline / n, strict=True)
        return [
            TrackFigure(
                *(name, int(count), float(r) if ok else None),
                *((float(loss), float(baseline)) if count else (None, None)),
            )
            for name, count, r, ok, loss, baseline in rows
        ]

    def _predictor(self, output: Tensor) -> Tensor:
        # What rounds to a rate of 0 in fp32 has the smallest one there.
        return output.clamp_min(torch.finfo(torch.float32).tiny).log() if self.link == "log" else output


def measure_tracks(
    model: TokenModel,
    embedder: Embedder,
    reader: TrackReader,
    regions: Sequence[Interval],
    sums: TrackSums,
    progress: Callable[[int], object] = lambda bases: None,
) -> None:
    """Adds what `predict_tracks` gives for regions, each read from its start on the plus strand.

    Args:
        model: on the embedder's device.
        embedder: of its backbone.
        reader: of what was measured, for the tracks of ``sums``.
        regions: which do not overlap.
        sums: of all tracks of the model, or some.
        progress: called with the number of bases done.
    """
    columns = [model.tracks.index(name) for name in sums.tracks]
    for region in regions:
        for piece, output in _in_place(region, model, embedder):
            sums.add(output[:, columns], torch.from_numpy(reader(piece).target))
            progress(piece.length)


def _in_place(region: Interval, model: TokenModel, embedder: Embedder) -> Iterator[tuple[Interval, Tensor]]:
    start = region.start
    for output in predict_tracks(model, embedder, region):
        yield Interval(region.contig, start, start + len(output)), torch.from_numpy(output)
        start += len(output)
