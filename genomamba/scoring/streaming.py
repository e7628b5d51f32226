"""Bits per base of whole stretches read once from end to end, so that no figure depends on how they were cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.data.datasets import WindowReader
from genomamba.data.references import Genome
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM, base_log_probability
from genomamba.scoring.regions import BITS_PER_NAT, RegionBits


class PieceBits(NamedTuple):
    """Bits of each base of one piece of a region, in the direction in which its strand is read."""

    interval: Interval
    bits: NDArray[np.float64]  # (L,); NaN where no base is predicted


@torch.inference_mode()
def stream_bits(
    model: CausalLM, reader: WindowReader, region: Interval, *, segment: int, device: torch.device
) -> Iterator[PieceBits]:
    """-log2 p(base | all bases of the region before it), segment by segment, the state carried.

    The region's first base is not predicted, nor is what is no base.

    Args:
        model: on ``device``, in eval mode.
        reader: of the genome.
        region: read along its strand.
        segment: bases per forward pass; it changes rounding, and nothing else.
        device: where to run.
    """
    state: list[Any] | None = None
    before: Tensor | None = None  # the logits that speak of the next segment's first base
    for piece in segments(region, segment):
        window = reader(piece)
        ids = torch.from_numpy(window.ids).to(device).unsqueeze(0)
        hidden, state = model.backbone(ids, state)
        logits: Tensor = model.lm_head(hidden)
        spoken = logits[:, :-1] if before is None else torch.cat([before, logits[:, :-1]], dim=1)
        log_p = base_log_probability(spoken, ids[:, ids.shape[1] - spoken.shape[1] :])
        bits = np.full(piece.length, np.nan)
        bits[piece.length - log_p.shape[1] :] = -log_p[0].double().cpu().numpy() * BITS_PER_NAT
        bits[window.weight == 0] = np.nan
        yield PieceBits(piece, bits)
        before = logits[:, -1:]


def segments(region: Interval, size: int) -> Iterator[Interval]:
    """Pieces of ``size`` bases, the last shorter, in the direction in which the region's strand is read."""
    for offset in range(0, region.length, size):
        length = min(size, region.length - offset)
        start = region.end - offset - length if region.strand == "-" else region.start + offset
        yield Interval(region.contig, start, start + length, region.strand)


class StreamingScorer:
    """Regions → bits; the model's state is carried through each region, whose first base alone is not predicted.

    Memory is that of one segment, whatever the region's length.

    Args:
        model: moved to ``device``.
        reference: the genome.
        segment: bases per forward pass; it changes rounding, and nothing else.
        device: where to run.
    """

    def __init__(self, model: CausalLM, reference: Genome, *, segment: int, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.reader = WindowReader(reference, softmask_weight=1.0)
        self.segment, self.device = segment, device

    def __call__(self, regions: Sequence[Interval]) -> Iterator[RegionBits]:
        for region in regions:
            yield self._region(region)

    def _region(self, region: Interval) -> RegionBits:
        bases, bits = 0, 0.0
        for piece in stream_bits(self.model, self.reader, region, segment=self.segment, device=self.device):
            bases += int(np.count_nonzero(~np.isnan(piece.bits)))
            bits += float(np.nansum(piece.bits))
        return RegionBits(region, bases, bits)
