"""What a model of whole sequences says of many: in order, whatever the batch size, neighbours and lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.model.sequence_heads import SequenceModel
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.length_batches import LengthBatches


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
        batch_size: sequences per forward pass; None plans it, and halves it where the memory does not hold it.
        device: where to run.
    """

    def __init__(self, model: SequenceModel, *, batch_size: int | None, device: torch.device) -> None:
        self.model, self.device = model.to(device).eval(), device
        remedy = "leave sequences as long as that out, or run on another device"
        self._batches = LengthBatches(model.config, batch_size, device, otherwise=remedy)

    @property
    def halved(self) -> Halved | None:
        """What became of planned batches until now, in bases; None where they fit."""
        return self._batches.halved

    @torch.inference_mode()
    def outputs(self, sequences: Sequence[Ids]) -> Tensor:
        """(N, C), fp32, on the CPU: outputs of the model, as its ``probabilities`` and ``values`` take them."""
        return self._each(sequences, self.model)

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
        return self._each(sequences, lambda ids, length: torch.stack(self.model.features(ids, length), 1))

    def _each(self, sequences: Sequence[Ids], read: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        def forward(part: slice) -> Tensor:
            ids, length = stack_ids(sequences[part])
            on_device = None if length is None else length.to(self.device)
            return read(ids.to(self.device), on_device).float().cpu()

        return torch.cat([found for _, found in self._batches([each.size for each in sequences], forward)])
