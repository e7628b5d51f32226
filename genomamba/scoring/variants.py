"""Scores of variants: log-likelihood ratios, probabilities where the model is a classifier, distances on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from genomamba.data.pairs import VariantWindow, read_window
from genomamba.genome.variant import Variant
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.heads import VariantClassifier
from genomamba.scoring.batch_size import Halved, does_not_fit, planned
from genomamba.scoring.batching import batches
from genomamba.scoring.causal_alleles import CausalAlleles
from genomamba.scoring.distances import Distances
from genomamba.scoring.masked_alleles import MaskedAlleles
from genomamba.scoring.paired_alleles import PairedAlleles

if TYPE_CHECKING:
    from genomamba.data.reference import Reference

BATCHES_AT_ONCE = 16  # are sorted by length among themselves


def shared_step(model: torch.nn.Module, window: int) -> int:
    """The `VariantScorer` step by which a model gains: under a causal one, neighbours then read their window once.

    A sixteenth of the window, so that a variant's context is never shorter by more than a sixteenth on one side.
    A classifier has learnt with the variant in the middle, so it stays there.
    """
    return max(1, window // 16) if isinstance(model, CausalLM) else 1


class VariantScore(NamedTuple):
    llr: float  # log p(alt) - log p(ref), nats: over the window, or at the site for a masked model; mean of strands
    probability: float | None  # calibrated, of the positive class; None where the model is no classifier
    logit: float | None
    distances: Distances | None = None  # None where they were not asked for


class Alleles(Protocol):
    """How a kind of model reads both alleles; see `CausalAlleles` and `MaskedAlleles`."""

    def prepare(self, windows: Sequence[VariantWindow]) -> Any: ...
    def __call__(self, rows: Any) -> Tensor: ...


class VariantScorer:
    """Variants → scores, in order, whatever the batch size.

    Args:
        model: a language model or a classifier; moved to ``device``.
        reference: the genome that the variants stand on.
        window: bases of genomic span around each variant.
        batch_size: variants per forward pass; None plans it, and halves it where the memory does not hold it.
        device: where to run.
        step: windows' middles are moved to a grid, so that neighbours share a window; see `place_window` and
            `shared_step`.
        reuse_state: whether a causal model reads once what alleles share; changes rounding, and nothing else.
        with_distances: whether to find `Distances` too.
        workers: threads that read windows while the model is at work on those before; they change no score.

    Attributes:
        device: as given.
        batch_size: as given or planned, or what is left of it after halving.
    """

    def __init__(
        self,
        model: CausalLM | MaskedLM | VariantClassifier,
        reference: Reference,
        *,
        window: int,
        batch_size: int | None,
        device: torch.device,
        step: int = 1,
        reuse_state: bool = True,
        with_distances: bool = False,
        workers: int = 0,
    ) -> None:
        model = model.to(device).eval()
        self.reference, self.window, self.step, self.device = reference, window, step, device
        self.with_distances, self.is_classifier = with_distances, isinstance(model, VariantClassifier)
        self._automatic, self._workers = batch_size is None, workers
        self.batch_size = planned(model.config, window, device) if batch_size is None else batch_size
        self._planned = self.batch_size
        self._alleles: Alleles
        if isinstance(model, MaskedLM):
            self._alleles = MaskedAlleles(model, device, with_distances=with_distances)
        elif isinstance(model, CausalLM) or model.config.is_causal:
            self._alleles = CausalAlleles(model, device, reuse_state=reuse_state, with_distances=with_distances)
        else:
            self._alleles = PairedAlleles(model, device, with_distances=with_distances)

    @property
    def halved(self) -> Halved | None:
        """What became of the batches until now; None where they fit."""
        return None if self.batch_size == self._planned else Halved(self._planned, self.batch_size)

    def __call__(self, variants: Sequence[Variant]) -> Iterator[VariantScore]:
        """Each must have passed `data.variants.classify` with this window and step.

        Raises:
            OutOfMemoryError: a batch does not fit, or a single variant where the size is planned.
        """
        size = BATCHES_AT_ONCE * self.batch_size
        chunks = [variants[start : start + size] for start in range(0, len(variants), size)]
        for windows in self._windows(chunks):
            yield from self._some(windows)

    def _windows(self, chunks: Sequence[Sequence[Variant]]) -> Iterator[list[VariantWindow]]:
        if not self._workers:
            yield from (list(map(self._window, chunk)) for chunk in chunks)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            ahead = [pool.submit(self._window, variant) for chunk in chunks[:1] for variant in chunk]
            for following in [*chunks[1:], ()]:
                now, ahead = ahead, [pool.submit(self._window, variant) for variant in following]
                if now:
                    yield [window.result() for window in now]

    def _window(self, variant: Variant) -> VariantWindow:
        return read_window(self.reference, variant, self.window, self.step)

    def _some(self, windows: list[VariantWindow]) -> list[VariantScore]:
        scores: list[VariantScore | None] = [None] * len(windows)
        pending: tuple[list[int], Tensor] | None = None
        for places in batches(windows, self.batch_size):
            own = [windows[place] for place in places]
            columns = self._read(self._alleles.prepare(own), own)
            if pending is not None:  # only now: a GPU has the next batch to do while this waits for the one before
                self._take(*pending, scores)
            pending = places, columns
        if pending is not None:
            self._take(*pending, scores)
        found = [score for score in scores if score is not None]
        assert len(found) == len(windows), "a variant is in no batch"
        return found

    @torch.inference_mode()
    def _read(self, rows: Any, windows: list[VariantWindow]) -> Tensor:
        try:
            return self._alleles(rows)
        except torch.OutOfMemoryError as error:
            if len(windows) == 1 or not self._automatic:
                raise does_not_fit(len(windows), self.window, automatic=self._automatic) from error
        torch.cuda.empty_cache()
        half = (len(windows) + 1) // 2
        self.batch_size = min(self.batch_size, half)
        parts = (windows[:half], windows[half:])
        return torch.cat([self._read(self._alleles.prepare(part), part) for part in parts])

    def _take(self, places: list[int], columns: Tensor, scores: list[VariantScore | None]) -> None:
        for place, row in zip(places, columns.tolist(), strict=True):
            llr, rest = row[0], row[1:]
            probability, logit = None, None
            if self.is_classifier:
                (probability, logit), rest = rest[:2], rest[2:]
            scores[place] = VariantScore(llr, probability, logit, Distances(*rest) if self.with_distances else None)
