"""The language-modelling tasks. Wiring: batch in, loss out, bits per base logged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from genomamba.data.datasets import SOFT_MASKED, UNIQUE, Batch
from genomamba.errors import GenoMambaError
from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import MaskingConfig
from genomamba.model.masking import mask_bases
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.cuda_graph import MOST_TOKENS, GraphedLoss
from genomamba.tasks.host_copy import HostCopy
from genomamba.tasks.metrics_log import LOG_EVERY
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.shards import clip_sharded, own_parts, shard
from genomamba.tasks.stop_signals import StopSignals
from genomamba.tasks.strategies import ShardedStrategy

BITS_PER_NAT = 1 / math.log(2)
SPLITS = ("train", "valid")
STRATA = ("unique", "soft_masked")


class NonFiniteLossError(GenoMambaError):
    """The loss is NaN or infinite; raised before the optimizer steps."""


class PretrainTask(LightningModule):
    """Next-base prediction. Every step logs bits per base (log2), weighted as the loader says.

    A step's loss is the weighted mean over all its bases, whatever the number of micro-batches: each contributes
    its sum over a constant, and the gradients are scaled by what the weights turn out to be before they are clipped.

    Args:
        model: to be trained.
        optimizer: its settings.
        steps: of the whole run.
        batch_size: windows per micro-batch.
        window: bases per window.
        accumulate: micro-batches per step.
        cuda_graph: on one GPU, replay the loss of short windows and its gradient as CUDA graphs.
    """

    model: CausalLM | MaskedLM
    _sums: Tensor  # of the step so far: loss and weights

    def __init__(
        self,
        model: CausalLM | MaskedLM,
        optimizer: OptimizerConfig,
        steps: int,
        *,
        batch_size: int,
        window: int,
        accumulate: int = 1,
        cuda_graph: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.optimizer_config, self.steps = model, optimizer, steps
        self.batch_size, self.window, self.accumulate = batch_size, window, accumulate
        self.nominal = batch_size * (window - 1 if isinstance(model, CausalLM) else window)
        self.rejected = 0  # windows passed over for their N's, since this process began
        self.where: list[str] = []  # the windows of the current step
        self.step_loss = math.nan  # of the latest step, nats per base
        self.cuda_graph = cuda_graph
        self._graphed: GraphedLoss | None = None
        self.stop: StopSignals | None = None
        self.time_gone = 0.0  # the share of the run's time; 0 where it has no end
        self.agreed = (0, 0.0)  # by all ranks: the signal that stops the run, the share of its time

    def _loss(self, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        """Summed weighted loss in nats and the sum of weights; ``number`` counts the split's micro-batches."""
        weight = batch.weight[:, 1:]
        if self._graphed is not None and self.training and batch.reset is None:
            if batch.ids.numel() == self.batch_size * self.window:  # whole: of the length that windows now have
                self._graphed.renew_for(batch.ids)
            return self._graphed(batch.ids, weight), weight.sum()
        return self._causal_loss(batch.ids, weight, batch.reset), weight.sum()

    def _causal_loss(self, ids: Tensor, weight: Tensor, reset: Tensor | None = None) -> Tensor:
        assert isinstance(self.model, CausalLM)
        return -(weight * self.model.log_likelihood(ids, reset)).sum()

    def on_fit_start(self) -> None:
        if self.trainer.world_size == 1:
            self.graph_short_steps(self.device)

    def graph_short_steps(self, device: torch.device) -> None:
        """From now on replays steps as CUDA graphs, where that is asked for, possible and worth it."""
        plain = isinstance(self.model, CausalLM) and not self.model.backbone.activation_checkpointing
        wanted = self.cuda_graph and device.type == "cuda"
        if wanted and plain and self.batch_size * self.window <= MOST_TOKENS:
            self._graphed = GraphedLoss(self._causal_loss, self.model, adds_up=self.accumulate > 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        place = batch_idx % self.accumulate
        total, weight = self._loss(batch, self.global_step * self.accumulate + place)
        sums = torch.stack((total.detach(), weight)).double()  # 64 bits: their order between devices hardly matters
        self._sums = sums if place == 0 else self._sums + sums
        self.where = [*(self.where if place else ()), *batch.where]
        self.rejected += batch.rejected
        if place == self.accumulate - 1:
            seen = self._of_all_ranks(self._sums) if self.trainer_ranks > 1 else self._sums
            self._seen = HostCopy(seen)
        return total / self.nominal

    @property
    def trainer_ranks(self) -> int:
        return self._trainer.world_size if self._trainer is not None else 1

    def _of_all_ranks(self, sums: Tensor) -> Tensor:
        """The sums over all ranks, and with them the first one's signal to stop and share of its time."""
        number = (self.stop.received if self.stop is not None else None) or 0
        wishes = [0.0, 0.0] if self.global_rank else [float(number), self.time_gone]
        both = torch.cat((sums, torch.tensor(wishes, dtype=sums.dtype).to(sums.device, non_blocking=True)))
        torch.distributed.all_reduce(both)
        return both

    def configure_model(self) -> None:
        """Shards the model where the strategy asks for it: FSDP2."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy) and not isinstance(self.model, FSDPModule):
            shard(self.model, strategy.device_mesh["data_parallel"])

    def on_train_end(self) -> None:
        if isinstance(self.model, FSDPModule):
            self._whole = get_model_state_dict(
                self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
            )

    def whole_model(self) -> CausalLM | MaskedLM:
        """The model with all of its weights, once training is over."""
        if not isinstance(self.model, FSDPModule):
            return self.model
        model = (CausalLM if isinstance(self.model, CausalLM) else MaskedLM)(self.model.config)
        model.load_state_dict(self._whole)
        return model

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Looks at the loss while the device is busy with the backward pass, so that it need not wait for us."""
        total, weight, *asked = self._seen.wait().tolist()
        self.agreed = (int(asked[0]), asked[1]) if asked else (0, self.time_gone)
        self.step_loss = total / max(weight, 1.0)
        if not math.isfinite(self.step_loss):
            shown = ", ".join(self.where[:4]) + (f" and {len(self.where) - 4} more" if len(self.where) > 4 else "")
            raise NonFiniteLossError(
                f"the loss is {self.step_loss} at step {self.global_step}, in windows {shown}; "
                "the weights were not changed; lower optimizer.lr, or look at these windows"
            )
        # The trainer takes the mean over micro-batches and ranks.
        factor = self.nominal * self.accumulate * self.trainer_ranks / max(weight, 1.0)
        gradients = own_parts(p.grad for p in self.parameters() if p.grad is not None)
        if factor != 1 and gradients:
            torch._foreach_mul_(gradients, factor)
        if self.global_step and (self.global_step + 1) % LOG_EVERY:
            return  # what would not be kept costs a millisecond
        self._log("train_bits_per_base", self.step_loss * BITS_PER_NAT, prog_bar=True)
        self._log("lr", optimizer.param_groups[0]["lr"])
        if self.rejected:
            self._log("rejected_windows", self.rejected)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if isinstance(self.model, FSDPModule) and gradient_clip_val:
            clip_sharded(self.model.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _log(self, name: str, value: float, *, prog_bar: bool = False) -> None:
        # As a tensor on the CPU: a number would be copied to the device, which waits for all that is queued there.
        self.log(name, torch.tensor(float(value)), prog_bar=prog_bar)

    def _by_position(self, batch: Batch, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Loss in nats, weight and stratum of each predicted position; the stratum is 0 where nothing is predicted."""
        assert isinstance(self.model, CausalLM)
        assert batch.stratum is not None
        nats = -self.model.log_likelihood(batch.ids, batch.reset)
        return nats, batch.weight[:, 1:], batch.stratum[:, 1:]

    def on_validation_epoch_start(self) -> None:
        self.validation_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        groups = len(self.trainer.datamodule.validation.contigs)  # type: ignore[attr-defined]
        # Nats and bases of each contig and stratum.
        self.validation_strata = torch.zeros(groups, len(STRATA), 2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        nats, weight, stratum = self._by_position(batch, batch_idx)
        self.validation_sums += torch.stack(((weight * nats).sum(), weight.sum())).double()
        assert batch.group is not None
        for column, kind in enumerate((UNIQUE, SOFT_MASKED)):
            own = stratum == kind
            rows = torch.stack(((nats * own).sum(1, dtype=torch.float64), own.sum(1).double()), dim=1)
            self.validation_strata[:, column].index_add_(0, batch.group, rows)

    def on_validation_epoch_end(self) -> None:
        if self.trainer_ranks > 1:
            torch.distributed.all_reduce(self.validation_sums)
            torch.distributed.all_reduce(self.validation_strata)
        total, weight = self.validation_sums.tolist()
        if weight > 0:  # a validation split of nothing but N has no figure
            self._log("valid_bits_per_base", total / weight * BITS_PER_NAT, prog_bar=True)
        for name, (nats, bases) in zip(STRATA, self.validation_strata.sum(0).tolist(), strict=True):
            if bases:
                self._log(f"valid_{name}_bits_per_base", nats / bases * BITS_PER_NAT)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = make_optimizer(self.model, self.optimizer_config, self.steps, lambda: self.agreed[1])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MaskedPretrainTask(PretrainTask):
    """Prediction of hidden bases; bits per base of those.

    The mask of sample i is a pure function of (seed, i), samples being numbered through the whole run; so is that
    of window i of the validation split.
    """

    def __init__(self, *args: Any, masking: MaskingConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.masking, self.seed = masking, seed

    def _loss(self, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        nats, weight, _ = self._by_position(batch, number)
        return (weight * nats).sum(), weight.sum()

    def _by_position(self, batch: Batch, number: int) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.model, MaskedLM)
        rows, length = batch.ids.shape
        split = "train" if self.training else "valid"
        full = rows if self.training else self.batch_size  # a batch of short windows has more of them
        first = (number * self.trainer_ranks + self.global_rank) * full
        uniform = np.stack([mask_numbers(self.seed, split, first + row, length) for row in range(rows)], axis=1)
        masked = mask_bases(batch.ids, self.masking, torch.from_numpy(uniform).to(batch.ids.device))
        weight = batch.weight * masked.predicted
        real = (batch.ids != alphabet.PAD).sum(1)
        stratum = weight if batch.stratum is None else batch.stratum * masked.predicted
        return -self.model.log_likelihood(masked.ids, batch.ids, real), weight, stratum


def mask_numbers(seed: int, split: str, sample: int, length: int) -> np.ndarray:
    """The numbers, (3, length), fp32 in [0, 1), that decide on one sample's mask."""
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 3, SPLITS.index(split), sample]))
    return random.random((3, length), dtype=np.float32)
