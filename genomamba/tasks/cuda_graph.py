"""Loss and gradient of short windows as CUDA graphs: one launch where Python would make hundreds."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# Tokens of a micro-batch from which the device computes for longer than Python needs to ask it to.
MOST_TOKENS = 1 << 18

Replay = Callable[[Tensor, Tensor], Tensor]


class GraphedLoss:
    """``loss(ids, weight)`` of a model, replayed from CUDA graphs for inputs of one shape.

    The graphs are captured at the first call, forward and backward, in a memory pool of their own; other shapes take
    the plain call. The kernels, their order and the random numbers they draw are those of the plain call, and so are
    the bits.

    Args:
        loss: summed loss of ids (B, L) under weights; differentiable in the model's parameters.
        model: whose parameters they are.
        adds_up: whether gradients of several calls are added before they are used. Each is then copied out of
            the graphs' memory, which the next replay writes again.
    """

    def __init__(self, loss: Replay, model: nn.Module, *, adds_up: bool = False) -> None:
        self._loss, self._model, self._adds_up = loss, model, adds_up
        self._hooks: list[RemovableHandle] = []
        self._replay: Replay | None = None
        self._shapes: tuple[torch.Size, torch.Size] | None = None

    def renew_for(self, ids: Tensor) -> None:
        """Where the graphs are of another shape than such ids, drops them: the next call captures anew."""
        if self._shapes is not None and self._shapes[0] != ids.shape:
            self._replay = self._shapes = None
            gc.collect()  # they are part of a cycle, and give their memory back before more is asked for

    def __call__(self, ids: Tensor, weight: Tensor) -> Tensor:
        shapes = (ids.shape, weight.shape)
        if self._replay is None:
            self._replay, self._shapes = self._capture(ids, weight), shapes
        return self._replay(ids, weight) if shapes == self._shapes else self._loss(ids, weight)

    def _capture(self, ids: Tensor, weight: Tensor) -> Replay:
        for hook in self._hooks:  # capturing would run them
            hook.remove()
        module = _Loss(self._loss, self._model).train()
        device = ids.device.type
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        # The graphs are captured on a stream of their own; replays wait for it.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        # Capturing draws random numbers, which the run is to draw again.
        generators = torch.random.fork_rng([ids.device] if ids.is_cuda else [])
        # A cached cast of a weight would be a tensor that later steps don't write.
        with generators, torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
            replay = cast(Replay, torch.cuda.make_graphed_callables(module, (ids.clone(), weight.clone())))
        if self._adds_up:
            self._hooks = [parameter.register_hook(torch.clone) for parameter in self._model.parameters()]
        return replay


class _Loss(nn.Module):
    def __init__(self, loss: Replay, model: nn.Module) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, ids: Tensor, weight: Tensor) -> Tensor:
        return self.loss(ids, weight)
