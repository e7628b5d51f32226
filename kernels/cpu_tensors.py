"""Tensors as the arrays that compiled CPU kernels take. An absent tensor is an array of size 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.errors import KernelUnavailableError


def flat_tokens(tensors: Sequence[Tensor | None], real: torch.dtype) -> tuple[list[NDArray], NDArray]:
    """Arrays of tokens, (B, L, any), as flat arrays and their batch and time strides; copied only if they must be."""
    flat, strides = [], []
    for tensor in tensors:
        if tensor is None:
            flat.append(as_array(None, real, 1))
            strides.append((0, 0))
            continue
        tensor = tensor.detach().to(real)
        if tensor.stride(2) != 1 and tensor.shape[2] > 1:
            tensor = tensor.contiguous()
        strides.append((tensor.stride(0), tensor.stride(1)))
        extent = (tensor.shape[0] - 1) * tensor.stride(0) + (tensor.shape[1] - 1) * tensor.stride(1) + tensor.shape[2]
        flat.append(_view(tensor.as_strided((extent,), (1,))))
    return flat, np.array(strides, dtype=np.int64)


def as_array(tensor: Tensor | None, dtype: torch.dtype, dims: int) -> NDArray:
    if tensor is None:
        return torch.empty((0,) * dims, dtype=dtype).numpy()
    return _view(tensor.detach().to(dtype).contiguous())


def _view(tensor: Tensor) -> NDArray:
    # `Tensor.numpy` would forbid for good that the tensor's memory be freed, as FSDP2 does with parameters.
    return tensor.numpy() if tensor.dtype == torch.bool else np.from_dlpack(tensor)


def sum_parts(parts: Tensor) -> Tensor:
    """The sum over the first dimension, one part after another: no thread count or shape changes its bits."""
    total = parts[0].numpy().copy()
    for part in parts[1:].numpy():
        total += part
    return torch.from_numpy(total)


def refuse_second_derivatives() -> None:
    """For the start of a backward: under ``create_graph`` its result would count as a constant, silently."""
    if torch.is_grad_enabled():
        raise KernelUnavailableError("impl='cpu' has no second derivatives: use impl='reference' under create_graph")
