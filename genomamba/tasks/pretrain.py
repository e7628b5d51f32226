"""The language-modelling tasks. Wiring: batch in, loss out, bits per base logged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from genomamba.data.datasets import Batch
from genomamba.errors import GenoMambaError
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import MaskingConfig
from genomamba.model.masking import mask_bases
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.optimizer import adamw_cosine

BITS_PER_NAT = 1 / math.log(2)
SPLITS = ("train", "valid")


class NonFiniteLossError(GenoMambaError):
    """The loss is NaN or infinite; raised before the optimizer steps."""


class PretrainTask(LightningModule):
    """Next-base prediction; every step logs bits per base (log2), weighted as the loader says."""

    model: CausalLM | MaskedLM

    def __init__(self, model: CausalLM | MaskedLM, optimizer: OptimizerConfig, steps: int) -> None:
        super().__init__()
        self.model, self.optimizer_config, self.steps = model, optimizer, steps
        self.rejected = 0  # windows passed over for their N's, since this process began

    def _loss(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Summed weighted loss in nats and the sum of weights."""
        assert isinstance(self.model, CausalLM)
        weight = batch.weight[:, 1:]
        return -(weight * self.model.log_likelihood(batch.ids, batch.reset)).sum(), weight.sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total, weight = self._loss(batch, batch_idx)
        loss = total / weight.clamp(min=1)
        self._current = (loss.detach().to("cpu", non_blocking=True), batch.where)
        self._copied = torch.cuda.Event() if loss.is_cuda else None
        if self._copied is not None:
            self._copied.record()
        self.log("train_bits_per_base", loss.detach() * BITS_PER_NAT, prog_bar=True)
        self.rejected += batch.rejected
        if self.rejected:
            self.log("rejected_windows", float(self.rejected))
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Looks at the loss while the device is busy with the backward pass, so that it need not wait for us."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, where = self._current
        if not torch.isfinite(loss):
            shown = ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.global_step}, in windows {shown}; "
                "the weights were not changed; lower optimizer.lr, or look at these windows"
            )

    def on_validation_epoch_start(self) -> None:
        self.validation_sums = torch.zeros(2, dtype=torch.float64)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_sums += torch.stack(self._loss(batch, batch_idx)).double().cpu()

    def on_validation_epoch_end(self) -> None:
        total, weight = self.validation_sums.tolist()
        if weight > 0:  # a validation split of nothing but N has no figure
            self.log("valid_bits_per_base", total / weight * BITS_PER_NAT, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = adamw_cosine(self.model, self.optimizer_config, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MaskedPretrainTask(PretrainTask):
    """Prediction of hidden bases; bits per base of those.

    The mask of sample i is a pure function of (seed, i), samples being numbered through the whole run; so is that
    of window i of the validation split.
    """

    def __init__(
        self,
        model: MaskedLM,
        optimizer: OptimizerConfig,
        steps: int,
        masking: MaskingConfig,
        seed: int,
        batch_size: int,
    ) -> None:
        super().__init__(model, optimizer, steps)
        self.masking, self.seed, self.batch_size = masking, seed, batch_size

    def _loss(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        assert isinstance(self.model, MaskedLM)
        rows, length = batch.ids.shape
        # Samples are numbered through the whole run, which a resumed run continues.
        split, batches = ("train", self.global_step) if self.training else ("valid", batch_idx)
        first = batches * self.batch_size
        uniform = np.stack([mask_numbers(self.seed, split, first + row, length) for row in range(rows)], axis=1)
        masked = mask_bases(batch.ids, self.masking, torch.from_numpy(uniform).to(batch.ids.device))
        weight = batch.weight * masked.predicted
        real = (batch.ids != alphabet.PAD).sum(1)
        return -(weight * self.model.log_likelihood(masked.ids, batch.ids, real)).sum(), weight.sum()


def mask_numbers(seed: int, split: str, sample: int, length: int) -> np.ndarray:
    """The numbers, (3, length), fp32 in [0, 1), that decide on one sample's mask."""
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 3, SPLITS.index(split), sample]))
    return random.random((3, length), dtype=np.float32)
