"""AdamW, or Muon beside it, as Mamba is trained: parameter groups, warm-up, cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genomamba.errors import ConfigError
from genomamba.model.bidirectional import BidirectionalMixer
from genomamba.model.block import GatedMlp
from genomamba.model.mixer import Mixer
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.muon import MuonAdamW
from genomamba.tasks.shards import ShardedAdamW

DYNAMICS = ("A_log", "A_imag")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: what decays, and A_log, D, biases, norms and embeddings, which do not."""
    kept: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            kept.add(id(module.weight))
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    # What sets the dynamics must not decay, nor embeddings; all else that is spared is a vector.
    spared = [p for name, p in named if p.ndim < 2 or name.endswith(DYNAMICS) or id(p) in kept]
    spared_ids = {id(p) for p in spared}
    decayed = [p for _, p in named if id(p) not in spared_ids]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def muon_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """AdamW's two groups without the blocks' projections, and these: a group of its own for each way of stacking.

    Raises:
        ConfigError: no block's projection is trained.
    """
    stacked: dict[int, int] = {}
    for module in model.modules():
        counts = {}
        if isinstance(module, Mixer):
            # dt_proj is left to AdamW: it learned the same with either.
            counts = {"in_proj": module.in_parts, "x_proj": 1, "out_proj": 1}
        elif isinstance(module, BidirectionalMixer):
            counts = {"out_proj": 1}
        elif isinstance(module, GatedMlp):
            counts = {"fc1": 2, "fc2": 1}
        for name, count in counts.items():
            if hasattr(module, name):  # only Mamba has x_proj; a mixer that another one projects for lacks two
                stacked[id(getattr(module, name).weight)] = count
    groups = parameter_groups(model, weight_decay)
    matrices: dict[int, list[nn.Parameter]] = {}
    for parameter in groups[0]["params"]:
        if id(parameter) in stacked:
            matrices.setdefault(stacked[id(parameter)], []).append(parameter)
    if not matrices:
        raise ConfigError(
            "it is for the blocks' projections, and none is trained", "use adamw", field="optimizer.name", value="muon"
        )
    groups[0]["params"] = [parameter for parameter in groups[0]["params"] if id(parameter) not in stacked]
    return groups + [
        {"params": found, "weight_decay": weight_decay, "stacked": count} for count, found in matrices.items()
    ]


def make_optimizer(
    model: nn.Module, config: OptimizerConfig, steps: int, clock: Callable[[], float] | None = None
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer and its schedule: linear warm-up, then a cosine down to ``final`` of the peak at ``steps``.

    Args:
        model: to be trained.
        config: of both.
        steps: of the schedule.
        clock: for a run that time may end, the share of it that has gone by; the schedule never lags behind it.

    Raises:
        ConfigError: Muon has nothing to train.
    """
    on_gpu = next(model.parameters()).is_cuda  # one kernel instead of some per tensor; the CPU's bits stay as they are
    lr, betas, decay = config.lr, (config.beta1, config.beta2), config.weight_decay
    if config.name == "muon":
        groups = muon_groups(model, decay)
        optimizer: Optimizer = MuonAdamW(groups, lr=lr, betas=betas, momentum=config.momentum, fused=on_gpu)
    else:
        kind = ShardedAdamW if isinstance(model, FSDPModule) else AdamW
        optimizer = kind(parameter_groups(model, decay), lr=lr, betas=betas, fused=on_gpu or None)
    warmup = max(1, round(config.warmup * steps))

    def factor(step: int) -> float:
        if clock is not None:
            step = max(step, min(steps, int(clock() * steps)))
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return optimizer, LambdaLR(optimizer, factor)
