"""FSDP2: how a model is divided, and what a step does with gradients and weights, on each rank's own parts.

Given the sharded tensors, such work passes one by one through DTensor's dispatch; given the parts, it is the few
calls of one device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from genomamba.model.backbone import LanguageModel
from genomamba.tasks.adamw import adamw_step

# Bytes of parameters up to which a model is gathered as one: little beside what its activations take.
AT_ONCE = 1 << 28


def shard(model: LanguageModel, mesh: DeviceMesh, at_once: int = AT_ONCE) -> None:
    """Leaves each rank its part of every parameter; forward and backward gather what they need.

    A model of up to ``at_once`` bytes is gathered as one, once per micro-batch. A larger one is gathered block by
    block, in the forward and again in the backward, so that few blocks are whole at a time; each of them costs Python
    time in every step, whatever its size.

    Args:
        model: changed in place.
        mesh: of the ranks, one-dimensional.
        at_once: bytes of parameters.
    """
    if sum(parameter.nbytes for parameter in model.parameters()) > at_once:
        for block in model.backbone.layers:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


@torch.no_grad()
def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank has of each tensor, in the same memory; all of one that is not sharded."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


@torch.no_grad()
def clip_sharded(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scales the gradients of sharded parameters to a norm of at most ``largest``; all ranks call this.

    Args:
        parameters: those without a gradient are passed over.
        largest: norm of all gradients together, over all ranks.

    Returns:
        The norm that they had, a scalar.
    """
    parts = own_parts(parameter.grad for parameter in parameters if parameter.grad is not None)
    square = get_total_norm(parts).square()
    all_reduce(square)
    norm = square.sqrt()
    torch._foreach_mul_(parts, (largest / (norm + 1e-6)).clamp(max=1.0))  # as torch's clip_grad_norm_ has it
    return norm


class ShardedAdamW(AdamW):
    """AdamW on each rank's own parts; its state is sharded as the parameters are."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            adamw_step(self, group, trained, own_parts)
        return loss
