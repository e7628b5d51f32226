"""Bits per base of stretches of a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from genomamba.data.datasets import WindowReader, collate
from genomamba.data.reference import Reference
from genomamba.data.windows import tiles
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM

BITS_PER_NAT = 1 / math.log(2)


class RegionBits(NamedTuple):
    interval: Interval
    bases: int  # that were predicted; N is not
    bits: float  # summed over them


class RegionScorer:
    """Regions → bits, each region read in windows side by side, none of which sees another.

    Args:
        model: moved to ``device``.
        reference: the genome.
        window: bases per window.
        batch_size: windows per forward pass.
        device: where to run.
    """

    def __init__(
        self, model: CausalLM, reference: Reference, *, window: int, batch_size: int, device: torch.device
    ) -> None:
        self.model = model.to(device).eval()
        self.reader = WindowReader(reference, softmask_weight=1.0)
        self.window, self.batch_size, self.device = window, batch_size, device

    def __call__(self, regions: Sequence[Interval]) -> Iterator[RegionBits]:
        for region in regions:
            yield self._region(region)

    @torch.inference_mode()
    def _region(self, region: Interval) -> RegionBits:
        windows = tiles([region], self.window)
        bases, bits = 0, 0.0
        for start in range(0, len(windows), self.batch_size):
            batch = collate([self.reader(window) for window in windows[start : start + self.batch_size]])
            ids, predicted = batch.ids.to(self.device), batch.weight[:, 1:].to(self.device) > 0
            nats = -self.model.log_likelihood(ids)[predicted].double().sum().item()
            bases, bits = bases + int(predicted.sum()), bits + nats * BITS_PER_NAT
        return RegionBits(region, bases, bits)
