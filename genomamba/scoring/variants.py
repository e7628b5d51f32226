"""Scores of variants: log-likelihood ratios, and probabilities where the model is a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from genomamba.data.pairs import allele_pair, stack_pairs
from genomamba.data.reference import Reference
from genomamba.genome.variant import Variant
from genomamba.model.backbone import CausalLM
from genomamba.model.heads import SequencePair, VariantClassifier, pair_llr


class VariantScore(NamedTuple):
    llr: float  # log p(alt) - log p(ref) over the window, nats, mean of both strands
    probability: float | None  # calibrated, of the positive class; None where the model is no classifier
    logit: float | None


class VariantScorer:
    """Variants → scores, in order, whatever the batch size.

    Args:
        model: a language model or a classifier; moved to ``device``.
        reference: the genome that the variants stand on.
        window: bases of genomic span around each variant.
        batch_size: variants per forward pass; each is four sequences.
        device: where to run.
    """

    def __init__(
        self,
        model: CausalLM | VariantClassifier,
        reference: Reference,
        *,
        window: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.model = model.to(device).eval()
        self.reference, self.window, self.batch_size, self.device = reference, window, batch_size, device

    def __call__(self, variants: Sequence[Variant]) -> Iterator[VariantScore]:
        """Each must have passed `data.variants.classify` with this window."""
        for start in range(0, len(variants), self.batch_size):
            yield from self._batch(variants[start : start + self.batch_size])

    @torch.inference_mode()
    def _batch(self, variants: Sequence[Variant]) -> list[VariantScore]:
        pairs = [allele_pair(self.reference, variant, self.window) for variant in variants]
        pair = SequencePair(*(tensor.to(self.device) for tensor in stack_pairs(pairs, strands=2)))
        if isinstance(self.model, VariantClassifier):
            logit, llr = self.model(pair)
            columns = (llr.tolist(), self.model.probability(logit).tolist(), logit.tolist())
            return [VariantScore(*row) for row in zip(*columns, strict=True)]
        logits = self.model(pair.ids.flatten(0, 2))
        return [VariantScore(llr, None, None) for llr in pair_llr(logits, pair).mean(dim=1).tolist()]
