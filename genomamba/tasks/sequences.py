"""The task of classifying whole sequences, or of predicting a value of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import matthews_corrcoef
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from genomamba.data.datasets import SampleKey
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids
from genomamba.model.sequence_heads import SequenceModel
from genomamba.scoring.sequences import stack_ids
from genomamba.tasks.calibration import best_threshold, fit_temperature
from genomamba.tasks.checkpoint_io import SO_FAR
from genomamba.tasks.config import AugmentConfig, OptimizerConfig
from genomamba.tasks.cuda_graph import GraphedLoss
from genomamba.tasks.fine_tuning import FineTuning


class SequenceBatch(NamedTuple):
    ids: Tensor  # (B, L), uint8
    length: Tensor | None  # (B,), None where no row is padded
    target: Tensor  # (B,): class, or standardised value
    where: list[int]  # the sequences' numbers, for messages

    def to(self, device: torch.device) -> SequenceBatch:
        """The same on ``device``."""
        length = None if self.length is None else self.length.to(device, non_blocking=True)
        ids, target = (tensor.to(device, non_blocking=True) for tensor in (self.ids, self.target))
        return SequenceBatch(ids, length, target, self.where)


class TrainingSequences(Dataset[SequenceBatch]):
    """Batches of sequences; what is done to sample i of epoch e is a pure function of (seed, e, i).

    Args:
        sequences: ids.
        targets: (N,).
        augment: what is done to them.
        either_strand: whether half of them are shown as their reverse complement.
        seed: of all of it.
    """

    def __init__(
        self, sequences: Sequence[Ids], targets: Tensor, augment: AugmentConfig, *, either_strand: bool, seed: int
    ) -> None:
        self.sequences, self.targets, self.augment = sequences, targets, augment
        self.either_strand, self.seed = either_strand, seed
        self._epoch = -1

    def __getitems__(self, keys: list[SampleKey]) -> SequenceBatch:
        numbers = [key.sample for key in keys]
        ids, length = stack_ids([self.sequences[number] for number in numbers])
        if self.either_strand or self.augment.shift:
            flipped, by = (np.array(drawn) for drawn in zip(*map(self._drawn, keys), strict=True))
            ids = torch.from_numpy(moved(ids.numpy(), None if length is None else length.numpy(), flipped, by))
        if self.augment.mutate:
            for row, key in enumerate(keys):
                self._mutate(ids[row, : self.sequences[key.sample].size].numpy(), key)
        return SequenceBatch(ids, length, self.targets[numbers], numbers)

    def _drawn(self, key: SampleKey) -> tuple[bool, int]:
        """Whether a sample is shown from the other strand, and by how much it is moved; an epoch is drawn at once."""
        if key.epoch != self._epoch:
            random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 4, key.epoch, 0]))
            count, most = len(self.sequences), self.augment.shift
            self._flipped = random.integers(2, size=count, dtype=bool) & self.either_strand
            self._by = random.integers(-most, most + 1, count)
            self._epoch = key.epoch
        return self._flipped[key.sample], self._by[key.sample]

    def _mutate(self, ids: Ids, key: SampleKey) -> None:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 5, key.epoch, key.sample]))
        hit = random.random(ids.size) < self.augment.mutate
        ids[hit] = random.integers(alphabet.A, alphabet.T + 1, int(hit.sum()), dtype=np.uint8)


def moved(ids: Ids, length: NDArray | None, flipped: NDArray, by: NDArray) -> Ids:
    """Rows turned to their reverse complement, then moved to the right; N comes in, what leaves is lost.

    Args:
        ids: (B, L), right-padded.
        length: (B,), None where no row is padded.
        flipped: (B,), which rows are turned.
        by: (B,), bases; to the left where negative.
    """
    longest = ids.shape[1]
    size = np.full((len(ids), 1), longest) if length is None else length[:, None]
    position = np.arange(longest)
    source = position - by[:, None]
    inside = (source >= 0) & (source < size)
    source = np.where(flipped[:, None], size - 1 - source, source).clip(0, longest - 1)
    found = np.take_along_axis(ids, source, 1)
    found = np.where(flipped[:, None], alphabet.COMPLEMENT.take(found), found)
    found = np.where(inside, found, np.uint8(alphabet.N))
    return found if length is None else np.where(position < size, found, np.uint8(alphabet.PAD))


class EverySequence(Dataset[SequenceBatch]):
    """Batches of sequences as they stand."""

    def __init__(self, sequences: Sequence[Ids], targets: Tensor) -> None:
        self.sequences, self.targets = sequences, targets

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitems__(self, numbers: list[int]) -> SequenceBatch:
        ids, length = stack_ids([self.sequences[number] for number in numbers])
        return SequenceBatch(ids, length, self.targets[numbers], numbers)


def as_it_is(batch: Any) -> Any:
    """For a loader whose dataset gives whole batches."""
    return batch


class SequenceTask(FineTuning):
    """Cross-entropy, or squared error; keeps the weights of the best validation, by MCC or by squared error.

    Class weights multiply the loss, and have a mean of 1 over the training split; so its mean over that split does not
    depend on how it is cut into batches.

    Args:
        model: to be trained; its ``log_weight``, ``center`` and ``scale`` are set.
        optimizer: its settings, and the schedule's.
        steps: of the schedule.
        smoothing: share of a label that is spread over all classes.
        cuda_graph: on a GPU, replay the backbone and its gradient as CUDA graphs for batches of one length.
        others: of `FineTuning`.
    """

    model: SequenceModel

    def __init__(
        self,
        model: SequenceModel,
        optimizer: OptimizerConfig,
        steps: int,
        *,
        smoothing: float = 0.0,
        cuda_graph: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(model, optimizer, steps, rows="sequences", **others)
        self.smoothing, self.cuda_graph = smoothing, cuda_graph
        self._graphed: GraphedLoss | None = None
        self._best_validation: tuple[Tensor, Tensor] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[SO_FAR]["validation"] = self._best_validation

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._best_validation = checkpoint[SO_FAR]["validation"]

    def _loss(self, outputs: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        if self.model.is_regression:
            return F.mse_loss(outputs.float().squeeze(-1), target)
        # Over the batch's size: over its sum of weights, as torch has it, they would cancel in a batch of one class.
        weights = self.model.log_weight.exp()
        return F.cross_entropy(outputs.float(), target, weights, reduction="none", label_smoothing=smoothing).mean()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.cuda_graph and self.device.type == "cuda" and not self.frozen:
            parts = nn.ModuleList([self.model.backbone, self.model.pool])
            self._graphed = GraphedLoss(lambda ids, _: self.model.features(ids, given_only=True)[0], parts)

    def _outputs_of(self, batch: SequenceBatch) -> Tensor:
        if self._graphed is None or batch.length is not None:
            return self.model(batch.ids, batch.length, given_only=True)
        return self.model.head(self._graphed(batch.ids, batch.ids))

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        loss = self._loss(self._outputs_of(batch), batch.target, self.smoothing)
        self.saw(loss, batch.where)
        return loss

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self._outputs.append(self.model(batch.ids, batch.length).float())
        self._targets.append(batch.target)

    def on_validation_epoch_end(self) -> None:
        with self.context:
            outputs, target = torch.cat(self._outputs).cpu(), torch.cat(self._targets).cpu()
            unweighted = outputs - self.model.log_weight.cpu()
            figures = validation_figures(unweighted, target, is_regression=self.model.is_regression)
            loss, mcc = figures["valid_loss"], figures.get("valid_mcc", 0.0)
            better = not self.best or (mcc, -loss) > (self.best.get("valid_mcc", 0.0), -self.best["valid_loss"])
            improved = math.isfinite(loss) and better
            if improved:
                self._best_validation = (unweighted, target)
            self.validated(figures, improved=improved)

    def take_best(self) -> None:
        """Gives the model the best weights, calibrated."""
        super().take_best()
        if not self.model.is_regression:
            assert self._best_validation is not None
            calibrate_sequences(self.model, *self._best_validation)


def validation_figures(unweighted: Tensor, target: Tensor, *, is_regression: bool) -> dict[str, float]:
    """What a validation logs and is judged by; of two classes, the MCC at its best threshold.

    Args:
        unweighted: outputs less the model's ``log_weight``, (N, C).
        target: classes, or standardised values, (N,).
        is_regression: which of the two.
    """
    if is_regression:
        loss = float(F.mse_loss(unweighted.squeeze(-1), target))
        spread = float(target.var(unbiased=False))
        return {"valid_loss": loss, **({"valid_r2": 1 - loss / spread} if spread else {})}
    loss = float(F.cross_entropy(unweighted, target))
    if unweighted.shape[1] == 2:
        mcc = best_threshold(unweighted.softmax(-1)[:, 1], target.numpy()).mcc
    else:
        mcc = float(matthews_corrcoef(target.numpy(), unweighted.argmax(-1).numpy()))
    return {"valid_loss": loss, "valid_mcc": mcc}


@torch.no_grad()
def calibrate_sequences(model: SequenceModel, unweighted: Tensor, target: Tensor) -> None:
    """Sets the temperature, and for two classes the threshold, by the validation split.

    Args:
        model: changed in place.
        unweighted: logits of the validation split less the model's ``log_weight``, (N, C).
        target: classes, (N,).
    """
    temperature = fit_temperature(unweighted, target)
    model.temperature.fill_(temperature)
    if len(model.classes) == 2:
        probability = (unweighted.double() / temperature).softmax(-1)[:, 1]
        model.threshold.fill_(best_threshold(probability, target.numpy()).value)
