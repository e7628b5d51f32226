"""Muon for the matrices of the blocks and AdamW for all else, as one optimizer: one state, one schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from genomamba.tasks.adamw import adamw_step

# Of the polynomial a x + b x³ + c x⁵, which five times in a row takes (0.01, 1] to about 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TIMES = 5
_LEAST_NORM = 1e-7
_RMS = 0.2  # of an AdamW step, in learning rates


@torch.no_grad()
def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: every singular value becomes about 1 (0.7 to 1.2).

    Newton–Schulz iterations on a quintic polynomial in bf16, on all matrices at once (Jordan et al. 2024, "Muon: an
    optimizer for hidden layers in neural networks").

    Args:
        matrices: (K, rows, columns).

    Returns:
        (K, rows, columns), bf16.
    """
    tall = matrices.shape[1] > matrices.shape[2]  # the smaller product is the cheaper one
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(_TIMES):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


class MuonAdamW(Optimizer):
    """Muon where a group says so, AdamW elsewhere.

    A Muon step (Jordan et al. 2024) is the orthogonalised mean of gradients, Nesterov's way; its size is that of an
    AdamW step, 0.2 in root mean square, so that AdamW's learning rates and weight decay serve both (Liu et al. 2025,
    "Muon is scalable for LLM training", section 2.2). Matrices of one shape are worked on at once: the number of
    kernels does not grow with the number of layers.

    Args:
        groups: as of any optimizer. ``stacked`` in one makes it Muon's: its parameters are each so many matrices
            of equal shape, one above the other, and each of these is orthogonalised by itself.
        lr: learning rate.
        betas: of AdamW's moments.
        momentum: of Muon's mean of gradients.
        fused: AdamW in one kernel.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float,
        fused: bool,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8, "weight_decay": 0.0, "stacked": None}
        super().__init__(groups, defaults | {"fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["stacked"] is None:
                adamw_step(self, group, trained)
                continue
            by_shape = defaultdict(list)
            for parameter in trained:
                by_shape[parameter.shape].append(parameter)
            for equal in by_shape.values():
                self._muon(equal, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            means.append(state["momentum_buffer"])
        momentum, lr = group["momentum"], group["lr"]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        stack = torch.stack(torch._foreach_lerp(gradients, means, momentum))
        split = stack.view(len(parameters) * group["stacked"], -1, stack.shape[2])
        # In the parameters' own layout and type, for which one kernel adds to all of them.
        steps = orthogonalised(split).to(stack.dtype, memory_format=torch.contiguous_format).view_as(stack)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, steps.unbind(), alpha=-lr * _RMS * math.sqrt(max(split.shape[1:])))
