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
    """A batch of variants as sequences, on the CPU. A = 2 R, two alleles for each of R readings.

    Alleles stand in the order (variant, strand, ref | alt). Those of one length are hidden in one and the same row.
    """

    variant: Tensor  # (R,): which variant is read, once or on both strands
    hidden: Tensor  # ids (H, longest) with the site masked, right-padded
    hidden_length: Tensor  # (H,)
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
        model: on ``device``, in eval mode. Both strands are averaged; of one that is equivariant to them the other
            is the same and not asked for, unless the change is left-aligned elsewhere there.
        device: where it is.
        with_distances: whether to add the columns of `Distances`.
    """

    def __init__(self, model: MaskedLM, device: torch.device, *, with_distances: bool) -> None:
        self.model, self.device, self.with_distances = model, device, with_distances
        self._equivariant = model.config.rc_equivariant

    def prepare(self, windows: Sequence[VariantWindow]) -> MaskedRows:
        """The sequences to be read; needs no device."""
        read: list[tuple[int, VariantWindow]] = []
        for number, window in enumerate(windows):
            read.append((number, window))
            if window.reach or not self._equivariant:
                read.append((number, window.other_strand()))
        return lay_out_masked(read, unmasked=self.with_distances)

    def __call__(self, rows: MaskedRows) -> Tensor:
        """(V, columns), fp64; may still be under way on the device."""
        on = MaskedRows(*to_device(rows, self.device))
        logits = self.model(on.hidden, length=on.hidden_length)
        log_p = base_log_probability(logits[on.row[:, None], on.place], on.target).double().sum(1)
        columns = [log_p[1::2, None] - log_p[0::2, None]]
        if self.with_distances:
            hidden = self.model.backbone(on.ids, length=on.length, final_state=False)[0]
            site = site_mean(hidden, on.start, on.end, on.length, on.anchor)
            pool = span_mean(hidden, torch.zeros_like(on.length), on.length)
            columns += [distances(each[0::2], each[1::2]) for each in (site, pool)]
        read = torch.cat(columns, dim=1)
        total = read.new_zeros(int(rows.variant[-1]) + 1, read.shape[1]).index_add_(0, on.variant, read)
        times = torch.bincount(rows.variant)  # counted here: the device would keep us waiting
        return total / to_device([times], self.device)[0][:, None]


def lay_out_masked(read: Sequence[tuple[int, VariantWindow]], *, unmasked: bool) -> MaskedRows:
    """Rows of a batch: the number of a variant, and it on one strand."""
    hidden: list[np.ndarray] = []
    alleles: list[np.ndarray] = []
    row, start, end, anchors, places, targets = [], [], [], [], [], []
    for _, window in read:
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
        torch.tensor([number for number, _ in read]),
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
