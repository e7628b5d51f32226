"""AdamW as Mamba is trained: parameter groups, warm-up, cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genomamba.tasks.config import OptimizerConfig

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


def adamw_cosine(
    model: nn.Module, config: OptimizerConfig, steps: int, clock: Callable[[], float] | None = None
) -> tuple[Optimizer, LambdaLR]:
    """AdamW and its schedule: linear warm-up, then a cosine down to ``final`` of the peak at ``steps``.

    Args:
        model: to be trained.
        config: of both.
        steps: of the schedule.
        clock: for a run that time may end, the share of it that has gone by; the schedule never lags behind it.
    """
    groups = parameter_groups(model, config.weight_decay)
    on_gpu = next(model.parameters()).is_cuda  # one kernel instead of some per tensor; the CPU's bits stay as they are
    optimizer = AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=on_gpu or None)
    warmup = max(1, round(config.warmup * steps))

    def factor(step: int) -> float:
        if clock is not None:
            step = max(step, min(steps, int(clock() * steps)))
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return optimizer, LambdaLR(optimizer, factor)
