"""What fine-tuning does around a loss of its own: a look at every loss, and the weights of the best validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from genomamba.tasks.averaging import RunningMean
from genomamba.tasks.checkpoint_io import SO_FAR
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.host_copy import HostCopy
from genomamba.tasks.metrics_log import LOG_EVERY
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import NonFiniteLossError


class FineTuning(LightningModule):
    """A task calls `saw` in each training step, and `validated` at the end of each validation.

    Args:
        model: to be trained; it has a ``backbone``.
        optimizer: its settings, and the schedule's.
        steps: of the schedule.
        rows: what a batch is made of, for messages.
        average: decay of the running mean of the weights that is validated and kept; 0 for the weights themselves.
        patience: validations without improvement after which training ends; None: never.
        frozen: whether the backbone is not trained, and so runs without dropout.
        clock: see `make_optimizer`.

    Attributes:
        best: figures of the best validation so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerConfig,
        steps: int,
        *,
        rows: str,
        average: float = 0.0,
        patience: int | None = None,
        frozen: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.optimizer_config, self.steps, self.rows = optimizer, steps, rows
        self.patience, self.frozen, self.clock = patience, frozen, clock
        self.best: dict[str, float] = {}
        self._mean = RunningMean(model, average) if average else None
        self._best_weights: dict[str, Tensor] = {}
        self._validations = 0
        self._mean_found: dict[str, Any] | None = None  # of a checkpoint, until the model is on its device
        self.context = ExitStack()  # while it is open, the weights are those that are validated

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.context.close()  # within a validation, that a signal ends: what goes on is the weights, not their mean
        checkpoint[SO_FAR] = {
            "best": self.best,
            "weights": self._best_weights,
            "validations": self._validations,
            "mean": None if self._mean is None else self._mean.state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint[SO_FAR]
        self.best, self._best_weights = found["best"], found["weights"]
        self._validations, self._mean_found = found["validations"], found["mean"]

    def on_fit_start(self) -> None:
        if self._mean is not None and self._mean_found is not None:
            self._mean.restore(self._mean_found)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.frozen:
            self.model.backbone.eval()

    def saw(self, loss: Tensor, where: Sequence[object]) -> None:
        """Takes note of a step's loss and of the rows that gave it."""
        self._seen = (HostCopy(loss), where)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Looks at the loss while the device is busy with the backward pass, so that it need not wait for us."""
        copied, where = self._seen
        loss = copied.wait()
        if not torch.isfinite(loss):
            shown = ", ".join(str(row) for row in where[:4])
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.global_step}, in {self.rows} {shown} … of the training "
                "split; the weights were not changed; lower optimizer.lr"
            )
        if (self.global_step + 1) % LOG_EVERY == 0:  # what goes unseen takes as long as a small layer
            self.log("train_loss", loss, prog_bar=True)
            self.log("lr", torch.tensor(float(optimizer.param_groups[0]["lr"])))

    def on_train_batch_end(self, *_: Any) -> None:
        if self._mean is not None:
            self._mean.update()

    def on_validation_epoch_start(self) -> None:
        if self._mean is not None:
            self.context.enter_context(self._mean.in_place())

    def validated(self, figures: dict[str, float], *, improved: bool) -> None:
        """Logs a validation's figures, and keeps the weights where they are better than all before."""
        self._validations += 1
        self.log_dict(figures, prog_bar=True)
        if improved:
            self.best = {**figures, "validation": self._validations, "step": self.global_step}
            self._best_weights = copy.deepcopy(self.model.state_dict())
        elif self.patience is not None and self._validations - self.best.get("validation", 0) >= self.patience:
            self.trainer.should_stop = True

    def take_best(self) -> None:
        """Gives the model the best weights.

        Raises:
            NonFiniteLossError: no validation had a loss that is a number.
        """
        if not self.best:
            raise NonFiniteLossError("no validation gave a finite loss; lower optimizer.lr")
        self.model.load_state_dict(self._best_weights)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = make_optimizer(self.model, self.optimizer_config, self.steps, self.clock)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
