"""Both alleles of variants through a causal model, which reads what they have in common once.

Before a change both alleles are one sequence; the model's state there serves both. And variants with one window have
one reference. So of V variants in W windows of L bases, the site in the middle, W (L/2) tokens are read up to the
changes and (W + V) (L/2) after them, on each strand, where reading every sequence from its start takes 2 V L. Since the
recurrence is split and not approximated, both give the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genomamba.data.pairs import VariantWindow
from genomamba.model.backbone import CausalLM
from genomamba.model.heads import VariantClassifier
from genomamba.model.recurrence import Continuation, read_on, rows_of
from genomamba.scoring.batching import right_padded, to_device
from genomamba.scoring.distances import distances, site_mean, span_mean, span_sum


class Rows(NamedTuple):
    """A batch of variants as sequences; on the CPU. R = windows x strands, A = variants x strands, variants first.

    ``suffix`` holds the R references and then the A alternatives, each from ``cut`` on.
    """

    prefix: Tensor  # ids (R, cut), what all alleles of a window share
    suffix: Tensor  # ids (R + A, longest), right-padded
    length: Tensor  # (R + A,): of the suffixes, without padding
    parent: Tensor  # (A,): which reference an alternative belongs to
    start: Tensor  # (A,): of the change, within the suffix
    ref_end: Tensor  # (A,): of the bases that change, within the reference's suffix
    alt_end: Tensor  # (A,): of what replaces them, within the alternative's


class CausalAlleles:
    """Variants → columns of scores: llr, then logit and probability of a classifier, then distances if asked for.

    Args:
        model: causal; on ``device``, in eval mode.
        device: where it is.
        reuse_state: read once what alleles share; otherwise every sequence from its start, for comparison.
        with_distances: whether to add the columns of `Distances`.
    """

    def __init__(
        self, model: CausalLM | VariantClassifier, device: torch.device, *, reuse_state: bool, with_distances: bool
    ) -> None:
        self.model, self.device = model, device
        self.reuse_state, self.with_distances = reuse_state, with_distances
        self._flank = model.head_config.flank if isinstance(model, VariantClassifier) else 1

    def prepare(self, windows: Sequence[VariantWindow]) -> Rows:
        """The sequences to be read; needs no device."""
        return lay_out(windows, share=self.reuse_state, before=self._flank)

    def __call__(self, rows: Rows) -> Tensor:
        """(V, columns), fp64; may still be under way on the device."""
        references, cut = rows.prefix.shape
        prefix, suffix, length, parent, start, ref_end, alt_end = to_device(rows, self.device)
        at: Continuation | None = None
        before = None  # the sum of the prefixes' hidden states
        if cut:
            reading = read_on(self.model, prefix)
            if self.with_distances:
                before = reading.hidden.sum(1)
            at = reading.after
            del reading
            at = rows_of(at, torch.cat([torch.arange(references, device=self.device), parent]))
        hidden, log_p, _ = read_on(self.model, suffix, at, last=True)
        real = torch.arange(suffix.shape[1], device=self.device) < length[:, None]
        total = torch.where(real, log_p, log_p.new_zeros(())).double().sum(1)
        llr = total[references:] - total[parent]
        del at, log_p

        strands = (-1, 2)  # A → (V, S)
        columns = [llr.view(strands).mean(1, keepdim=True)]
        own = hidden[:references]
        if references < len(parent) and (self.with_distances or isinstance(self.model, VariantClassifier)):
            own = own[parent]  # a row for each alternative
        alleles = (
            (own, ref_end, length[parent]),
            (hidden[references:], alt_end, length[references:]),
        )
        if isinstance(self.model, VariantClassifier):
            pooled = [
                torch.cat([self._near(states, start, end, whole), span_mean(states, start, whole)], dim=-1)
                for states, end, whole in alleles
            ]
            ref, alt = (each.view(*strands, each.shape[-1]) for each in pooled)
            logit = self.model.answer(ref, alt, llr.view(*strands, 1).to(hidden.dtype))
            columns += [self.model.probability(logit).double()[:, None], logit.double()[:, None]]
        if self.with_distances:
            anchor = (ref_end != alt_end).long()
            site = [site_mean(states, start, end, whole, anchor) for states, end, whole in alleles]
            summed = [span_sum(states, torch.zeros_like(whole), whole) for states, _, whole in alleles]
            pool = [
                (each if before is None else each + before[parent]) / (whole + cut).unsqueeze(-1)
                for each, (_, _, whole) in zip(summed, alleles, strict=True)
            ]
            found = torch.cat([distances(*site), distances(*pool)], dim=-1)
            columns.append(found.view(*strands, found.shape[-1]).mean(1))
        return torch.cat(columns, dim=1)

    def _near(self, hidden: Tensor, start: Tensor, end: Tensor, whole: Tensor) -> Tensor:
        """As `VariantClassifier.forward` pools near the allele."""
        return span_mean(hidden, (start - self._flank).clamp(min=0), torch.minimum(end + self._flank, whole))


def lay_out(windows: Sequence[VariantWindow], *, share: bool, before: int) -> Rows:
    """Rows of a batch.

    Args:
        windows: along the + strand; those of one window need not be neighbours.
        share: cut where the first allele of the batch begins, and have one reference per window; otherwise cut at 0
            and have one per variant.
        before: bases before the change that must not be cut off.
    """
    both = [strand for window in windows for strand in (window, window.other_strand())]
    numbers: dict[tuple, int] = {}
    parent: list[int] = []
    references: list[np.ndarray] = []
    for place, window in enumerate(both):
        key = (window.span, place % 2) if share else (place,)
        if key not in numbers:
            numbers[key] = len(references)
            references.append(window.context)
        parent.append(numbers[key])
    cut = max(0, min(window.start for window in both) - before) if share else 0
    suffixes = [context[cut:] for context in references] + [window.alternative[cut:] for window in both]
    return Rows(
        right_padded([context[:cut] for context in references]),
        right_padded(suffixes),
        torch.tensor([suffix.size for suffix in suffixes]),
        torch.tensor(parent),
        torch.tensor([window.start - cut for window in both]),
        torch.tensor([window.end - cut for window in both]),
        torch.tensor([window.start + window.alt.size - cut for window in both]),
    )
