"""Hidden states of regions: of every base, or pooled into one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.data.datasets import WindowReader, collate
from genomamba.genome.interval import Interval
from genomamba.model.backbone import Backbone
from genomamba.model.config import ModelConfig
from genomamba.model.sequence_heads import Pool
from genomamba.model.windows import window_spans
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.length_batches import LengthBatches

Pooling = Literal["mean", "max", "last"]
Hidden = NDArray[np.float32]


def vector_width(config: ModelConfig) -> int:
    """Numbers per vector: both strands' side by side of a model that is equivariant to them."""
    return config.d_model * (2 if config.rc_equivariant else 1)


class Embedder:
    """Regions → hidden states after the last norm, as the heads see them.

    A causal model reads a region of any length with its state carried; others read overlapping windows. Of a model
    that is equivariant to strands, a base's vector holds both strands' states side by side.

    Args:
        backbone: moved to ``device``.
        reader: of the genome.
        window: bases per forward pass; of a causal model it changes rounding, and nothing else.
        overlap: bases that neighbouring windows of other models share.
        batch_size: regions per forward pass, of those that fit a window; None plans it, and halves it where the memory
            does not hold it.
        both_strands: the mean over a region and its reverse complement; otherwise the region's own strand.
        device: where to run.

    Attributes:
        width: numbers per vector.
    """

    def __init__(
        self,
        backbone: Backbone,
        reader: WindowReader,
        *,
        window: int,
        overlap: int,
        batch_size: int | None,
        both_strands: bool,
        device: torch.device,
    ) -> None:
        self.backbone, self.reader, self.device = backbone.to(device).eval(), reader, device
        self.window, self.overlap, self.both_strands = window, overlap, both_strands
        self._batches = LengthBatches(backbone.config, batch_size, device, otherwise="give a smaller --window")
        self.width = vector_width(backbone.config)

    @property
    def halved(self) -> Halved | None:
        """What became of planned batches until now, in bases; None where they fit."""
        return self._batches.halved

    def bases(self, region: Interval) -> Iterator[Hidden]:
        """Vectors of neighbouring bases, (l, width) at a time, in the direction in which the strand is read.

        Memory is that of a window; with both strands, that of the region.
        """
        if not self.both_strands:
            yield from (piece.cpu().numpy() for piece in self._pieces(region))
            return
        plus, minus = (torch.cat([piece.cpu() for piece in self._pieces(strand)]) for strand in strands_of(region))
        yield ((plus + minus.flip(0)) / 2).numpy()

    def pooled(
        self, regions: Sequence[Interval], how: Pooling, progress: Callable[[int], object] = lambda regions: None
    ) -> Hidden:
        """One vector per region, (R, width); memory is that of a batch of windows, however long a region is.

        Args:
            regions: none of them empty.
            how: mean, largest or last state of each channel, over the whole region.
            progress: called with the number of regions done.
        """
        found = np.empty((len(regions), self.width), dtype=np.float32)
        short = [place for place, region in enumerate(regions) if region.length <= self.window]
        short.sort(key=lambda place: regions[place].length)  # like lengths together, so that little is padding

        def forward(part: slice) -> Hidden:
            return self._batch([regions[place] for place in short[part]], how).cpu().numpy()

        for part, vectors in self._batches([regions[place].length for place in short], forward):
            found[short[part]] = vectors
            progress(len(vectors))
        for place, region in enumerate(regions):
            if region.length > self.window:
                strands = strands_of(region) if self.both_strands else (region,)
                each = [_pool(self._pieces(strand), how) for strand in strands]
                found[place] = torch.stack(each).mean(0).cpu().numpy()
                progress(1)
        return found

    @torch.inference_mode()
    def _batch(self, regions: Sequence[Interval], how: Pooling) -> Tensor:
        strands = [strands_of(region) if self.both_strands else (region,) for region in regions]
        each = []
        for rows in zip(*strands, strict=True):
            windows = [self.reader(row) for row in rows]
            length = torch.tensor([window.ids.size for window in windows], device=self.device)
            hidden, _ = self.backbone(collate(windows).ids.to(self.device), length=length, final_state=False)
            each.append(Pool(self.width, how)(hidden.float(), length))
        return torch.stack(each).mean(0)

    @torch.inference_mode()
    def _pieces(self, region: Interval) -> Iterator[Tensor]:
        """(l, width), fp32, on the device."""
        if self.backbone.config.is_causal:
            state: list[Any] | None = None
            for start in range(0, region.length, self.window):
                end = min(start + self.window, region.length)
                hidden, state = self.backbone(self._ids(region, start, end), state)
                yield hidden[0].float()
            return
        for start, end, first, last in window_spans(region.length, window=self.window, overlap=self.overlap):
            hidden, _ = self.backbone(self._ids(region, start, end), final_state=False)
            yield hidden[0, first - start : last - start].float()

    def _ids(self, region: Interval, start: int, end: int) -> Tensor:
        """Of bases ``start`` to ``end`` of the region, counted along its strand, (1, l)."""
        if region.strand == "-":
            piece = Interval(region.contig, region.end - end, region.end - start, "-")
        else:
            piece = Interval(region.contig, region.start + start, region.start + end, region.strand)
        return torch.from_numpy(self.reader(piece).ids).to(self.device).unsqueeze(0)


def strands_of(region: Interval) -> tuple[Interval, Interval]:
    """The region as it is given, and its reverse complement."""
    other = "+" if region.strand == "-" else "-"
    return region, Interval(region.contig, region.start, region.end, other)


def _pool(pieces: Iterator[Tensor], how: Pooling) -> Tensor:
    total, most, last, count = None, None, None, 0
    for piece in pieces:
        count += piece.shape[0]
        last = piece[-1]
        if how == "mean":
            own = piece.double().sum(0)
            total = own if total is None else total + own
        elif how == "max":
            own = piece.amax(0)
            most = own if most is None else torch.maximum(most, own)
    if total is not None:
        return (total / count).float()
    pooled = most if how == "max" else last
    assert pooled is not None, "a region without a base"
    return pooled
