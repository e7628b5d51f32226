"""The task of predicting tracks: a value of each base."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.data.track_windows import TrackBatch
from genomamba.model.sequence_heads import TokenModel
from genomamba.scoring.track_figures import TrackSums, base_loss
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.fine_tuning import FineTuning


class TrackTask(FineTuning):
    """Squared error, or a Poisson likelihood, by the model's link; keeps the weights of the lowest validation loss.

    While it trains, the head's predictors are standardised: under ``identity`` an output is center + scale · predictor
    with the training mean and spread, under ``log`` its log is the mean's plus the predictor. `fold` ends that.
    Each track's loss is divided by its variance, or under ``log`` by its mean, so that all count alike. In training
    targets are standardised too, in fp64: beside a large mean, fp32 has few digits left for what differs from it.

    Args:
        model: to be trained.
        optimizer: its settings, and the schedule's.
        steps: of the schedule.
        mean: of each track in the training regions, (T,); above 0 under ``log``.
        spread: their standard deviations, (T,), above 0.
        others: of `FineTuning`.
    """

    model: TokenModel
    shift: Tensor
    unit: Tensor
    center: Tensor
    scale: Tensor
    mean: Tensor

    def __init__(
        self,
        model: TokenModel,
        optimizer: OptimizerConfig,
        steps: int,
        *,
        mean: NDArray[np.float64],
        spread: NDArray[np.float64],
        **others: Any,
    ) -> None:
        super().__init__(model, optimizer, steps, rows="windows", **others)
        none, one = np.zeros_like(mean), np.ones_like(mean)
        if model.link == "log":
            shift, unit, center, scale, weight = none, mean, np.log(mean), one, 1 / mean
        else:
            shift, unit, center, scale, weight = mean, spread, mean, spread, spread**-2.0
        for name, values in (("shift", shift), ("unit", unit), ("center", center), ("scale", scale)):
            self.register_buffer(name, torch.from_numpy(values).double(), persistent=False)
        self.mean, self.weight = torch.from_numpy(mean), weight.tolist()

    def _standard(self, batch: TrackBatch) -> Tensor:
        return self.model.predictors(batch.ids, batch.length).float()

    def _predictors(self, batch: TrackBatch) -> Tensor:
        """In the tracks' unit, fp64."""
        return self._standard(batch).double() * self.scale + self.center

    def training_step(self, batch: TrackBatch, batch_idx: int) -> Tensor:
        counts = ~batch.target.isnan()
        target = ((batch.target.nan_to_num().double() - self.shift) / self.unit).float()
        each = base_loss(self._standard(batch), target, self.model.link)
        if self.model.link == "log":  # what is left of target · log output
            each = each - target * self.center.float()
        loss = torch.where(counts, each, 0).sum() / counts.sum()
        self.saw(loss, batch.where)
        return loss

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._sums = TrackSums(self.model.tracks, self.mean, self.model.link)

    def validation_step(self, batch: TrackBatch, batch_idx: int) -> None:
        self._sums.add(self.model.outputs(self._predictors(batch)), batch.target)

    def on_validation_epoch_end(self) -> None:
        with self.context:
            found = self._sums.figures()
            weighted = zip(found, self.weight, strict=True)
            losses = [figure.loss * weight for figure, weight in weighted if figure.loss is not None]
            loss = sum(losses) / len(losses)
            figures = {"valid_loss": loss}
            if defined := [figure.pearson for figure in found if figure.pearson is not None]:
                figures["valid_pearson"] = sum(defined) / len(defined)
            improved = math.isfinite(loss) and (not self.best or loss < self.best["valid_loss"])
            self.validated(figures, improved=improved)

    @torch.no_grad()
    def fold(self) -> None:
        """Makes the head's predictors those of the tracks' unit; to be called once, after training."""
        head = self.model.cpu().head
        center, scale = self.center.cpu(), self.scale.cpu()
        head.weight.copy_(head.weight.double() * scale[:, None])
        head.bias.copy_(head.bias.double() * scale + center)
