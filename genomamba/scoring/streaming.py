"""Bits per base of whole stretches read once from end to end, so that no figure depends on how they were cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from genomamba.data.datasets import WindowReader
from genomamba.data.references import Genome
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM, base_log_probability
from genomamba.scoring.regions import BITS_PER_NAT, RegionBits


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

    @torch.inference_mode()
    def _region(self, region: Interval) -> RegionBits:
        bases, nats = 0, 0.0
        state, before = None, None  # before: the logits that speak of the next segment's first base
        for piece in _segments(region, self.segment):
            window = self.reader(piece)
            ids = torch.from_numpy(window.ids).to(self.device).unsqueeze(0)
            predicted = torch.from_numpy(window.weight).to(self.device).unsqueeze(0) > 0
            hidden, state = self.model.backbone(ids, state)
            logits: Tensor = self.model.lm_head(hidden)
            if before is None:
                speaking, ids, predicted = logits[:, :-1], ids[:, 1:], predicted[:, 1:]
            else:
                speaking = torch.cat([before, logits[:, :-1]], dim=1)
            nats -= base_log_probability(speaking, ids)[predicted].double().sum().item()
            bases += int(predicted.sum())
            before = logits[:, -1:]
        return RegionBits(region, bases, nats * BITS_PER_NAT)


def _segments(region: Interval, size: int) -> Iterator[Interval]:
    """In the direction in which the region's strand is read."""
    cuts = range(0, region.length, size)
    for offset in cuts:
        length = min(size, region.length - offset)
        start = region.end - offset - length if region.strand == "-" else region.start + offset
        yield Interval(region.contig, start, start + length, region.strand)
