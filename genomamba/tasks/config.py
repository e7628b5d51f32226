"""How a model is trained. Knows no torch, so that command-line help stays quick."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from genomamba.errors import ConfigError

Device = Literal["auto", "cpu", "gpu"]
AlsoLog = Literal["nothing", "tensorboard", "wandb"]
DeviceSharing = Literal["auto", "ddp", "fsdp"]
Precision = Literal["32-true", "bf16-mixed"]
OptimizerName = Literal["adamw", "muon"]
Method = Literal["full", "head", "lora", "probe"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its schedule and its clipping.

    Attributes:
        name: of the optimizer; muon trains the blocks' projections by Muon and all else by AdamW, at the same rate.
        lr: peak learning rate.
        weight_decay: of matrices; A_log, D, biases, norms and embeddings have none.
        beta1: of Adam's first moment.
        beta2: of Adam's second moment.
        momentum: of Muon's mean of gradients.
        warmup: fraction of the steps over which the rate rises.
        final: the rate at the last step as a fraction of the peak.
        clip: largest norm of the gradient; 0 leaves it as it is.
    """

    name: OptimizerName = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.95
    warmup: float = 0.1
    final: float = 0.05
    clip: float = 1.0

    def __post_init__(self) -> None:
        for field, low, high in (
            ("lr", 0, math.inf), ("weight_decay", 0, math.inf), ("beta1", 0, 1), ("beta2", 0, 1),
            ("momentum", 0, 1), ("warmup", 0, 1), ("final", 0, 1), ("clip", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, field)
            if not low <= value <= high:
                span = f"between {low} and {high}" if high < math.inf else f"at least {low}"
                raise ConfigError(f"it must be {span}", "change it", field=f"optimizer.{field}", value=value)


@dataclass(frozen=True)
class AugmentConfig:
    """How training sequences are changed each time they are shown.

    Attributes:
        shift: most bases by which a training sequence is moved, either way; N comes in.
        mutate: share of its bases that are replaced by random ones.
        other_strand: show half of the training sequences as their reverse complement, also where the head reads strands
            as given or joined; for classes that both strands of a sequence share.
    """

    shift: int = 0
    mutate: float = 0.0
    other_strand: bool = False

    def __post_init__(self) -> None:
        for field, high in (("shift", math.inf), ("mutate", 1)):
            value = getattr(self, field)
            if not 0 <= value <= high:
                raise ConfigError(
                    "it must be at least 0" if value < 0 else "it must be at most 1",
                    "change it",
                    field=f"augment.{field}",
                    value=value,
                )


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank updates of projections that are themselves frozen (Hu et al. 2021).

    Attributes:
        rank: of each update.
        alpha: updates are scaled by alpha / rank.
        dropout: on an adapter's input in training.
        targets: last names of the projections that are adapted; in_proj, x_proj and out_proj, as far as the model has
            them, when not given.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        for field, low, high in (("rank", 1, math.inf), ("alpha", 1, math.inf), ("dropout", 0, 0.999)):
            if not low <= getattr(self, field) <= high:
                span = f"between {low} and {high}" if high < math.inf else f"at least {low}"
                raise ConfigError(f"it must be {span}", "change it", field=f"lora.{field}", value=getattr(self, field))


@dataclass(frozen=True)
class ProbeConfig:
    """A classifier on frozen features.

    Attributes:
        kind: of the classifier on frozen features: logistic regression (ridge for a regression), or boosted trees.
        strengths: what the L2 penalty's inverse may be; the one that is best on dev is taken.
        trees: most boosting rounds; dev says how many.
        leaves: most leaves of a tree.
        rate: learning rate of boosting.
    """

    kind: Literal["logistic", "boosting"] = "logistic"
    strengths: list[float] = dataclasses.field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0])
    trees: int = 200
    leaves: int = 15
    rate: float = 0.1

    def __post_init__(self) -> None:
        for field, low in (("trees", 1), ("leaves", 2)):
            if getattr(self, field) < low:
                raise ConfigError(
                    f"it must be at least {low}", "raise it", field=f"probe.{field}", value=getattr(self, field)
                )
        if not self.strengths or min(self.strengths) <= 0:
            raise ConfigError("they must be above 0", "change them", field="probe.strengths", value=self.strengths)
        if not 0 < self.rate <= 1:
            raise ConfigError("it must lie in (0, 1]", "change it", field="probe.rate", value=self.rate)
