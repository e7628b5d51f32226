"""Both alleles of variants through a classifier whose model looks both ways: nothing is shared, all is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genomamba.data.pairs import VariantWindow, stack_pairs
from genomamba.model.heads import SequencePair, VariantClassifier
from genomamba.scoring.batching import to_device
from genomamba.scoring.distances import distances, site_mean, span_mean


class PairedAlleles:
    """Variants → columns of scores: llr, probability and logit, then distances if asked for.

    Args:
        model: on ``device``, in eval mode.
        device: where it is.
        with_distances: whether to add the columns of `Distances`.
    """

    def __init__(self, model: VariantClassifier, device: torch.device, *, with_distances: bool) -> None:
        self.model, self.device, self.with_distances = model, device, with_distances

    def prepare(self, windows: Sequence[VariantWindow]) -> SequencePair:
        """The sequences to be read; needs no device."""
        return SequencePair(*stack_pairs([window.pair() for window in windows], strands=2))

    def __call__(self, rows: SequencePair) -> Tensor:
        """(V, columns), fp64; may still be under way on the device."""
        pair = SequencePair(*to_device(rows, self.device))
        logit, llr = self.model(pair)
        columns = [torch.stack([llr.double(), self.model.probability(logit).double(), logit.double()], dim=1)]
        if self.with_distances:
            variants, strands, _, size = pair.ids.shape
            length = pair.length.reshape(-1)
            hidden = self.model.backbone(pair.ids.reshape(-1, size), length=length, final_state=False)[0]
            start, end = (pair.site[..., place].reshape(-1) for place in (0, 1))
            alleles = (pair.site[..., 1] - pair.site[..., 0]).view(-1, 2)
            anchor = (alleles[:, :1] != alleles[:, 1:]).expand_as(alleles).reshape(-1).long()
            site = site_mean(hidden, start, end, length, anchor)
            pool = span_mean(hidden, torch.zeros_like(length), length)
            found = torch.cat([distances(each[0::2], each[1::2]) for each in (site, pool)], dim=-1)
            columns.append(found.view(variants, strands, found.shape[-1]).mean(1))
        return torch.cat(columns, dim=1)
