"""In-silico saturation mutagenesis under models that look both ways, and under classifiers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genomamba.data.datasets import Window, WindowReader, collate
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant
from genomamba.model.backbone import MaskedLM
from genomamba.model.windows import conjoined
from genomamba.scoring.causal_mutagenesis import Progress, Scores
from genomamba.scoring.sequences import SequenceScorer
from genomamba.scoring.variants import VariantScorer


class SiteMutagenesis:
    """log p(alternative) - log p(reference) of each base of a region, hidden from a masked model, nats.

    A model that is not equivariant reads both strands and its logits are averaged.

    Args:
        model: moved to ``device``.
        reader: of the genome.
        window: bases around each base, cut where the contig ends, that the model sees.
        rows: bases at once.
        device: where to run.
    """

    def __init__(self, model: MaskedLM, reader: WindowReader, *, window: int, rows: int, device: torch.device) -> None:
        self.model, self.reader, self.device = model.to(device).eval(), reader, device
        self.window, self.rows = window, rows

    def __call__(self, region: Interval, progress: Progress = lambda bases: None) -> Scores:
        """Scores of the substitutions in ``region``."""
        length = self.reader.reference.contigs[region.contig]
        found: list[np.ndarray] = []
        for start in range(region.start, region.end, self.rows):
            sites = range(start, min(start + self.rows, region.end))
            windows = []
            for site in sites:
                low = site - self.window // 2
                windows.append(Interval(region.contig, max(0, low), min(length, low + self.window)))
            found.append(self._sites([self.reader(each) for each in windows], list(sites)))
            progress(len(sites))
        return np.concatenate(found)

    @torch.inference_mode()
    def _sites(self, windows: list[Window], sites: list[int]) -> np.ndarray:
        ids = collate(windows).ids.to(self.device)
        own = torch.tensor([window.ids.size for window in windows], device=self.device)
        at = torch.tensor([site - w.pieces[0].start for site, w in zip(sites, windows, strict=True)]).to(self.device)
        row = torch.arange(len(sites), device=self.device)
        reference = ids[row, at].long()
        ids[row, at] = torch.where(is_base(reference), alphabet.MASK, reference).to(ids.dtype)
        logits = self.model(ids, length=own) if self.model.config.rc_equivariant else conjoined(self.model, ids, own)
        log_p = logits[row, at, alphabet.A : alphabet.T + 1].double().log_softmax(-1)
        offset = (reference - alphabet.A).clamp(0, 3)
        scores = log_p - log_p.gather(1, offset[:, None])
        scores[row, offset] = torch.nan
        scores[~is_base(reference)] = torch.nan
        return scores.cpu().numpy()


def classifier_mutagenesis(scorer: VariantScorer, region: Interval, sequence: str, progress: Progress) -> Scores:
    """Calibrated probabilities of the positive class.

    Args:
        scorer: of a variant classifier.
        region: whose bases are changed.
        sequence: its bases in upper case, along the + strand.
        progress: called with the number of bases done.
    """
    every = list(substitutions(sequence))
    scores = np.full((region.length, 4), np.nan)
    variants = [Variant(region.contig, region.start + place, ref, alt) for place, ref, alt in every]
    done = 0
    for (place, _, alt), score in zip(every, scorer(variants), strict=True):
        scores[place, "ACGT".index(alt)] = score.probability
        if place > done:
            progress(place - done)
            done = place
    progress(region.length - done)
    return scores


def sequence_mutagenesis(
    scorer: SequenceScorer, ids: Ids, target: int | None, rows: int, progress: Progress = lambda bases: None
) -> Scores:
    """The change of a class's log-odds, or of the value, of a whole sequence by each substitution in it.

    Args:
        scorer: of a model of whole sequences.
        ids: the sequence, (L,).
        target: the class; None for a regression.
        rows: substitutions at once.
        progress: called with the number of bases done.
    """

    def answers(sequences: list[Ids]) -> np.ndarray:
        return scorer.answers(sequences) if target is None else scorer.log_odds(sequences, target)

    before = answers([ids])[0]
    scores = np.full((ids.size, 4), np.nan)
    block = max(1, rows // 3)
    for start in range(0, ids.size, block):
        places = [
            (place, base)
            for place in range(start, min(start + block, ids.size))
            if ids[place] in alphabet.BASES
            for base in alphabet.BASES
            if base != ids[place]
        ]
        if places:
            changed = np.tile(ids, (len(places), 1))
            place, base = np.array(places).T
            changed[np.arange(len(places)), place] = base
            scores[place, base - alphabet.A] = answers(list(changed)) - before
        progress(min(block, ids.size - start))
    return scores


def is_base(ids: Tensor) -> Tensor:
    """Whether each id is A, C, G or T."""
    return (ids >= alphabet.A) & (ids <= alphabet.T)


def substitutions(sequence: str) -> Iterator[tuple[int, str, str]]:
    """Place, reference and alternative base of every substitution in a sequence of upper-case letters."""
    for place, ref in enumerate(sequence):
        if ref in "ACGT":
            yield from ((place, ref, alt) for alt in "ACGT" if alt != ref)
