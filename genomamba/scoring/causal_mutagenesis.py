"""In-silico saturation mutagenesis under a causal model: every substitution in a stretch, what they share read once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.recurrence import Continuation, read_on, rows_of

Scores = NDArray[np.float64]  # (L, 4), by base of the region and by A, C, G, T; NaN at the reference's own base, and
# in rows where the reference has none
Progress = Callable[[int], object]  # called with the number of bases done since it was last called


class CausalMutagenesis:
    """log p(alternative) - log p(reference) of a stretch under a causal model, nats, for every substitution.

    The sequence before a substitution is read once for all of them. The substitutions of a few neighbouring bases
    are rows of one batch that begins with the state before the first of them, beside a row without any; so only what
    follows a substitution is read again. The figures are those of scoring both whole sequences, to rounding.

    Args:
        model: moved to ``device``.
        strands: which are read, of "+" and "-"; the scores are the mean.
        horizon: bases from a substitution on that count, itself included; None: all to the stretch's end.
        rows: substitutions at once.
        tokens: bases per forward pass, over all rows; it changes rounding and memory, and nothing else.
        device: where to run.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        strands: str = "+-",
        horizon: int | None,
        rows: int,
        tokens: int,
        device: torch.device,
    ) -> None:
        self.model, self.device = model.to(device).eval(), device
        self.strands, self.horizon, self.rows, self.tokens = strands, horizon, rows, tokens

    def __call__(self, ids: np.ndarray, first: int, last: int, progress: Progress = lambda bases: None) -> Scores:
        """Scores of the substitutions in ``ids[first:last]``.

        Args:
            ids: of the stretch, which is all that the model sees, (L,), uint8.
            first: the first base to change.
            last: one past the last.
            progress: each base counts once per strand.
        """
        total = np.zeros((last - first, 4))
        for strand in self.strands:
            if strand == "+":
                total += self._one_strand(ids, first, last, progress)
            else:
                other = self._one_strand(alphabet.reverse_complement(ids), len(ids) - last, len(ids) - first, progress)
                total += other[::-1, ::-1]  # A, C, G, T complemented is T, G, C, A
        return total / len(self.strands)

    @torch.inference_mode()
    def _one_strand(self, given: np.ndarray, first: int, last: int, progress: Progress) -> Scores:
        ids = torch.from_numpy(given.copy()).to(self.device)
        scores = np.full((last - first, 4), np.nan)
        at: Continuation | None = None
        read, block = 0, max(1, self.rows // 3)
        for start in range(first, last, block):
            while read < start:
                ahead = min(read + self.tokens, start)
                at, read = read_on(self.model, ids[None, read:ahead], at).after, ahead
            end = min(start + block, last)
            places = [
                (place, base)
                for place in range(start, end)
                if given[place] in alphabet.BASES
                for base in alphabet.BASES
                if base != given[place]
            ]
            if places:
                place, base = torch.tensor(places, device=self.device).T
                scores[place.cpu() - first, base.cpu() - alphabet.A] = self._rows(ids, start, place, base, at).cpu()
            progress(end - start)
        return scores

    def _rows(self, ids: Tensor, start: int, place: Tensor, base: Tensor, at: Continuation | None) -> Tensor:
        """(substitutions,), fp64: differences of log-probabilities of what follows ``start``, where ``at`` stands."""
        end = len(ids) if self.horizon is None else min(len(ids), int(place[-1]) + self.horizon)
        count = len(place) + 1  # the first row is the reference
        at = None if at is None else rows_of(at, torch.zeros(count, dtype=torch.long, device=self.device))
        total = torch.zeros(len(place), dtype=torch.float64, device=self.device)
        step = max(1, self.tokens // count)
        for low in range(start, end, step):
            high = min(low + step, end)
            row = ids[low:high].repeat(count, 1)
            here = torch.nonzero((place >= low) & (place < high)).flatten()
            row[here + 1, place[here] - low] = base[here].to(row.dtype)
            _, log_p, at = read_on(self.model, row, at)
            gain = log_p[1:].double() - log_p[:1].double()
            if self.horizon is not None:
                gain = gain * (torch.arange(low, high, device=self.device) < place[:, None] + self.horizon)
            total += gain.sum(1)
        return total
