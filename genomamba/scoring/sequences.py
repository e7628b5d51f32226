"""What a model of whole sequences says of many: in order, whatever the batch size, neighbours and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.model.sequence_heads import SequenceModel


def stack_ids(sequences: Sequence[Ids]) -> tuple[Tensor, Tensor | None]:
    """Sequences of one length or several → (ids (B, L) uint8, right-padded; length (B,), None where all are L)."""
    sizes = [sequence.size for sequence in sequences]
    longest = max(sizes)
    ids = np.full((len(sequences), longest), alphabet.PAD, dtype=np.uint8)
    for row, sequence in enumerate(sequences):
        ids[row, : sequence.size] = sequence
    length = None if min(sizes) == longest else torch.tensor(sizes)
    return torch.from_numpy(ids), length


class SequenceScorer:
    """Sequences → logits of classes, or standardised values; both strands as the model's head says.

    Args:
        model: moved to ``device``.
        batch_size: sequences per forward pass.
        device: where to run.
    """

    def __init__(self, model: SequenceModel, *, batch_size: int, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.batch_size, self.device = batch_size, device

    @torch.inference_mode()
    def outputs(self, sequences: Sequence[Ids]) -> Tensor:
        """(N, C), fp32, on the CPU: outputs of the model, as its ``probabilities`` and ``values`` take them."""
        return torch.cat([self.model(ids, length).float().cpu() for ids, length in self._batches(sequences)])

    def answers(self, sequences: Sequence[Ids]) -> NDArray[np.float64]:
        """Calibrated probabilities (N, C), or values (N,) in the labels' unit."""
        outputs = self.outputs(sequences).to(self.device)
        model = self.model
        found = model.values(outputs) if model.is_regression else model.probabilities(outputs.double())
        return found.double().cpu().numpy()

    def log_odds(self, sequences: Sequence[Ids], target: int) -> NDArray[np.float64]:
        """Calibrated log-odds (N,) of one class, nats."""
        return self.model.log_odds(self.outputs(sequences).to(self.device), target).cpu().numpy()

    @torch.inference_mode()
    def features(self, sequences: Sequence[Ids]) -> Tensor:
        """(N, S, width), fp32, on the CPU: what the head sees for each of its answers."""
        found = [torch.stack(self.model.features(ids, length), 1) for ids, length in self._batches(sequences)]
        return torch.cat([part.float().cpu() for part in found])

    def _batches(self, sequences: Sequence[Ids]) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(sequences), self.batch_size):
            ids, length = stack_ids(sequences[start : start + self.batch_size])
            yield ids.to(self.device), None if length is None else length.to(self.device)
