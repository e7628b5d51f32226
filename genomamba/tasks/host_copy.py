"""Figures of a step on their way to the host, which need not stand still for them."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy on the CPU, begun now; whoever asks for it waits for it alone, not for what the device is given later."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if tensor.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> Tensor:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy
