"""AdamW's step through torch's function, for optimizers that do something else with some of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw


@torch.no_grad()
def adamw_step(
    optimizer: Optimizer,
    group: dict[str, Any],
    parameters: Sequence[Tensor],
    parts: Callable[[Iterable[Tensor]], list[Tensor]] = list,
) -> None:
    """One step of Loshchilov & Hutter (2019), "Decoupled weight decay regularization"; state is as AdamW has it.

    Args:
        optimizer: whose state it is.
        group: of its parameter groups.
        parameters: of this group, all with a gradient.
        parts: gives what is worked on of given tensors, in the same memory.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    first, second, steps = [], [], []
    for parameter in parameters:
        state = optimizer.state[parameter]
        if not state:
            # As AdamW itself has it: on the device only where its one kernel counts.
            state["step"] = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        first.append(state["exp_avg"])
        second.append(state["exp_avg_sq"])
        steps.append(state["step"])
    beta1, beta2 = group["betas"]
    adamw(
        parts(parameters), parts(gradients), parts(first), parts(second), [], parts(steps),
        fused=group["fused"] or None, amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"],
        weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
    )  # fmt: skip
