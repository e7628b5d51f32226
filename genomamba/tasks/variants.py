"""The variant-classification task: pairs of alleles in, a logit out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningModule
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import Dataset

from genomamba.data.datasets import SampleKey
from genomamba.data.pairs import AllelePair, allele_pair, stack_pairs
from genomamba.data.reference import Reference
from genomamba.genome.variant import Variant
from genomamba.model.heads import SequencePair, VariantClassifier
from genomamba.tasks.calibration import best_threshold
from genomamba.tasks.checkpoint_io import SO_FAR
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.host_copy import HostCopy
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import NonFiniteLossError


class VariantBatch(NamedTuple):
    pair: SequencePair
    label: Tensor  # (V,), 0 or 1


class TrainingVariants(Dataset[tuple[AllelePair, int]]):
    """Labelled variants, each on one strand that is a pure function of (seed, epoch, sample)."""

    def __init__(
        self, reference: Reference, variants: Sequence[Variant], labels: Sequence[int], window: int, seed: int
    ) -> None:
        self.reference, self.variants, self.labels, self.window, self.seed = reference, variants, labels, window, seed

    def __getitem__(self, key: SampleKey) -> tuple[AllelePair, int]:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 1, key.epoch, key.sample]))
        strand = "+-"[random.integers(2)]
        return allele_pair(self.reference, self.variants[key.sample], self.window, strand), self.labels[key.sample]


class EveryVariant(Dataset[tuple[AllelePair, int]]):
    """Labelled variants on both strands, in order."""

    def __init__(self, reference: Reference, variants: Sequence[Variant], labels: Sequence[int], window: int) -> None:
        self.reference, self.variants, self.labels, self.window = reference, variants, labels, window

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, index: int) -> tuple[AllelePair, int]:
        return allele_pair(self.reference, self.variants[index], self.window), self.labels[index]


def collate_variants(items: Sequence[tuple[AllelePair, int]]) -> VariantBatch:
    pairs = [pair for pair, _ in items]
    strands = len(pairs[0].rows) // 2
    labels = torch.tensor([label for _, label in items], dtype=torch.float32)
    return VariantBatch(SequencePair(*stack_pairs(pairs, strands)), labels)


class VariantTask(LightningModule):
    """Binary cross-entropy; keeps the weights of the best validation AUROC.

    Args:
        model: to be trained.
        optimizer: its settings, and the schedule's.
        steps: of the schedule.
        positive_weight: what a variant of class 1 counts beside one of class 0.
        patience: validations without improvement after which training ends; None: never.
        frozen: whether the backbone is not trained, and so runs without dropout.
        clock: see `make_optimizer`.
    """

    def __init__(
        self,
        model: VariantClassifier,
        optimizer: OptimizerConfig,
        steps: int,
        positive_weight: float,
        *,
        patience: int | None = None,
        frozen: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.optimizer_config, self.steps = model, optimizer, steps
        self.positive_weight, self.patience, self.frozen = positive_weight, patience, frozen
        self.clock = clock
        self.best_auroc = -1.0
        self.best_weights: dict[str, Tensor] = {}
        self._since_best = 0

    def training_step(self, batch: VariantBatch, batch_idx: int) -> Tensor:
        if self.frozen:
            self.model.backbone.eval()
        logit, _ = self.model(batch.pair)
        loss = F.binary_cross_entropy_with_logits(logit, batch.label, pos_weight=logit.new_tensor(self.positive_weight))
        self._seen = HostCopy(loss)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Looks at the loss while the device is busy with the backward pass, so that it need not wait for us."""
        loss = self._seen.wait()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.global_step}; "
                "the weights were not changed; lower optimizer.lr"
            )
        self.log("train_loss", loss, prog_bar=True)
        self.log("lr", torch.tensor(float(optimizer.param_groups[0]["lr"])))

    def on_validation_epoch_start(self) -> None:
        self.validation_logits: list[Tensor] = []
        self.validation_labels: list[Tensor] = []

    def validation_step(self, batch: VariantBatch, batch_idx: int) -> None:
        logit, _ = self.model(batch.pair)
        self.validation_logits.append(logit.float().cpu())
        self.validation_labels.append(batch.label.cpu())

    def on_validation_epoch_end(self) -> None:
        logits, labels = torch.cat(self.validation_logits), torch.cat(self.validation_labels)
        auroc = float(roc_auc_score(labels.numpy(), logits.numpy()))
        self.log("valid_auroc", auroc, prog_bar=True)
        self.log("valid_loss", F.binary_cross_entropy_with_logits(logits, labels))
        self._since_best += 1
        if auroc > self.best_auroc:
            self.best_auroc, self._since_best = auroc, 0
            self.best_weights = copy.deepcopy(self.model.state_dict())
            calibrate(self.model, logits, labels)
            for name in ("slope", "intercept", "threshold"):
                self.best_weights[name] = getattr(self.model, name).clone()
        elif self.patience is not None and self._since_best >= self.patience:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SO_FAR] = {
            "auroc": self.best_auroc,
            "weights": self.best_weights,
            "since": self._since_best,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint[SO_FAR]
        self.best_auroc, self.best_weights, self._since_best = found["auroc"], found["weights"], found["since"]

    def on_train_end(self) -> None:
        self.model.load_state_dict(self.best_weights)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = make_optimizer(self.model, self.optimizer_config, self.steps, self.clock)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def calibrate(model: VariantClassifier, logits: Tensor, labels: Tensor) -> None:
    """Sets slope and intercept by logistic regression on the validation split, and the threshold of its best MCC.

    Args:
        model: changed in place.
        logits: of the validation split, (V,).
        labels: 0 or 1, (V,).
    """
    fit = LogisticRegression(C=np.inf).fit(logits.numpy()[:, None], labels.numpy())
    model.slope.fill_(float(fit.coef_[0, 0]))
    model.intercept.fill_(float(fit.intercept_[0]))
    probability = torch.sigmoid(model.slope.cpu() * logits + model.intercept.cpu())
    model.threshold.fill_(best_threshold(probability, labels.numpy()).value)
