"""Both alleles of variants through a masked model: what it expects where the bases that change are hidden from it.

llr = Σ log p(base of alt) - Σ log p(base of ref), over the bases that change, all of which are hidden at once. Where
the alleles differ in length, the base on either side is hidden and counted too, in both: an empty allele then has two
bases that must fit together. (A longer allele has more terms, as in a causal model's likelihood of the window.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genomamba.data.pairs import VariantWindow
from genomamba.genome import alphabet
from genomamba.model.backbone import MaskedLM, base_log_probability
from genomamba.scoring.batching import right_padded, to_device
from genomamba.scoring.distances import distances, site_mean, span_mean


class MaskedRows(NamedTuple):
    """A batch of variants as sequences, on the CPU. A = 2 x variants x strands.

    Alleles stand in the order (variant, strand, ref | alt). Those of one length are hidden in one and the same row.
    """

    hidden: Tensor  # ids (R, longest) with the site masked, right-padded
    hidden_length: Tensor  # (R,)
    row: Tensor  # (A,): which row an allele is hidden in
    place: Tensor  # (A, most): the masked places of that row
    target: Tensor  # ids (A, most): what stood there, [PAD] beyond
    ids: Tensor  # ids (A, longest), nothing masked, right-padded; no columns where they are not needed
    length: Tensor  # (A,)
    start: Tensor  # (A,), of the change
    end: Tensor  # (A,), of the allele
    anchor: Tensor  # (A,), 1 where the alleles differ in length


class MaskedAlleles:
    """Variants → columns of scores: llr, then distances if asked for.

    Args:
        model: on ``device``, in eval mode. One that is equivariant to strands is asked for one strand, the other
            being the same; others for both, and averaged.
        device: where it is.
        with_distances: whether to add the columns of `Distances`.
    """

    def __init__(self, model: MaskedLM, device: torch.device, *, with_distances: bool) -> None:
        self.model, self.device, self.with_distances = model, device, with_distances
        self._strands = 1 if model.config.rc_equivariant else 2

    def prepare(self, windows: Sequence[VariantWindow]) -> MaskedRows:
        """The sequences to be read; needs no device."""
        read = [each for window in windows for each in (window, window.other_strand())[: self._strands]]
        return lay_out_masked(read, unmasked=self.with_distances)

    def __call__(self, rows: MaskedRows) -> Tensor:
        """(V, columns), fp64; may still be under way on the device."""
        on = MaskedRows(*to_device(rows, self.device))
        logits = self.model(on.hidden, length=on.hidden_length)
        log_p = base_log_probability(logits[on.row[:, None], on.place], on.target).double().sum(1)
        log_p = log_p.view(-1, self._strands, 2)
        columns = [(log_p[..., 1] - log_p[..., 0]).mean(1, keepdim=True)]
        if self.with_distances:
            hidden = self.model.backbone(on.ids, length=on.length, final_state=False)[0]
            site = site_mean(hidden, on.start, on.end, on.length, on.anchor)
            pool = span_mean(hidden, torch.zeros_like(on.length), on.length)
            found = torch.cat([distances(each[0::2], each[1::2]) for each in (site, pool)], dim=-1)
            columns.append(found.view(-1, self._strands, found.shape[-1]).mean(1))
        return torch.cat(columns, dim=1)


def lay_out_masked(windows: Sequence[VariantWindow], *, unmasked: bool) -> MaskedRows:
    """Rows of a batch, one variant on one strand per entry of ``windows``."""
    hidden: list[np.ndarray] = []
    alleles: list[np.ndarray] = []
    row, start, end, anchors, places, targets = [], [], [], [], [], []
    for window in windows:
        reference = window.end - window.start
        anchor = int(window.alt.size != reference)
        for ids, size in ((window.context, reference), (window.alternative, window.alt.size)):
            first, last = max(0, window.start - anchor), min(ids.size, window.start + size + anchor)
            if not (len(alleles) % 2 and not anchor):  # alt of ref's length is hidden where ref is
                masked = ids.copy()
                masked[first:last] = alphabet.MASK
                hidden.append(masked)
            row.append(len(hidden) - 1)
            alleles.append(ids)
            start.append(window.start)
            end.append(window.start + size)
            anchors.append(anchor)
            places.append(np.arange(first, last))
            targets.append(ids[first:last])
    return MaskedRows(
        right_padded(hidden),
        torch.tensor([each.size for each in hidden]),
        torch.tensor(row),
        right_padded(places, 0),
        right_padded(targets),
        right_padded(alleles if unmasked else [each[:0] for each in alleles]),
        torch.tensor([each.size for each in alleles]),
        torch.tensor(start),
        torch.tensor(end),
        torch.tensor(anchors),
    )
