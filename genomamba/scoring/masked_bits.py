"""Bits per base of models that look both ways: every base is hidden once, and asked for from both sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genomamba.data.datasets import WindowReader
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.model.backbone import MaskedLM, base_log_probability
from genomamba.model.windows import window_spans
from genomamba.scoring.regions import BITS_PER_NAT
from genomamba.scoring.streaming import PieceBits


class MaskedBits:
    """Regions → bits of each base, window by window; memory is that of one window.

    A pass hides every ``hide_every``-th base, so that as many passes hide each base once; the others of its pass are
    hidden with it, as in training. What is summed is a pseudo-likelihood (Salazar et al. 2020), not the likelihood of
    the region.

    Args:
        model: on ``device``, in eval mode.
        reader: of the genome.
        window: bases per window.
        overlap: bases that neighbouring windows share; see `model.windows.window_spans`.
        hide_every: one base in so many is hidden in each pass; 1 hides all, so that nothing is left to see.
        batch_size: passes at once.
        device: where to run.
    """

    def __init__(
        self,
        model: MaskedLM,
        reader: WindowReader,
        *,
        window: int,
        overlap: int,
        hide_every: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.model, self.reader, self.device = model, reader, device
        self.window, self.overlap, self.hide_every, self.batch_size = window, overlap, hide_every, batch_size

    def __call__(self, region: Interval) -> Iterator[PieceBits]:
        """Pieces in the direction in which the region's strand is read."""
        backwards = region.strand == "-"
        for span in window_spans(region.length, window=self.window, overlap=self.overlap):
            start, end, first, last = span if not backwards else (region.length - at for at in span)
            low, high = min(start, end), max(start, end)
            window = self.reader(Interval(region.contig, region.start + low, region.start + high, region.strand))
            bits = self._bits(torch.from_numpy(window.ids).to(self.device), span.start)
            bits[window.weight == 0] = np.nan
            low, high = min(first, last), max(first, last)
            kept = Interval(region.contig, region.start + low, region.start + high, region.strand)
            yield PieceBits(kept, bits[span.first - span.start : span.last - span.start])

    @torch.inference_mode()
    def _bits(self, ids: Tensor, offset: int) -> np.ndarray:
        """(L,): of one window that begins ``offset`` bases into the region; 0 where there is no base."""
        phase = (torch.arange(len(ids), device=self.device) + offset) % self.hide_every
        is_base = (ids >= alphabet.A) & (ids <= alphabet.T)
        log_p = torch.zeros(len(ids), device=self.device)
        for phases in torch.arange(self.hide_every, device=self.device).split(self.batch_size):
            hidden = (phase == phases[:, None]) & is_base
            rows = torch.where(hidden, torch.full_like(ids, alphabet.MASK), ids)
            found = base_log_probability(self.model(rows), ids.expand_as(rows))
            log_p += torch.where(hidden, found, found.new_zeros(())).sum(0)
        return -log_p.double().cpu().numpy() * BITS_PER_NAT
