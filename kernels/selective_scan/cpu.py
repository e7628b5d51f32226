"""The scan on a CPU: torch's side of `cpu_kernels`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genomamba.kernels.cpu_math import LOG2E
from genomamba.kernels.cpu_rows import LANES
from genomamba.kernels.cpu_tensors import as_array, flat_tokens, refuse_second_derivatives, sum_parts
from genomamba.kernels.cpu_threads import share
from genomamba.kernels.selective_scan import cpu_kernels
from genomamba.kernels.selective_scan.cpu_kernels import CHUNK
from genomamba.kernels.selective_scan.reference import selective_scan_reference

# Blocks of channels, the unit of parallel work: their number follows from D alone, so that neither the
# threads nor the batch change a bit. Each block costs the backward one more copy of the gradients of B and C.
_MOST_BLOCKS = 16


def selective_scan_cpu(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.selective_scan`. Computes in fp64 where any of u, dt, A, B, C is, in fp32 otherwise."""
    inputs = _Inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse)
    if u.numel() == 0:
        return selective_scan_reference(u, dt, A, B, C, D, z, dt_bias, dt_softplus, initial_state, reset, reverse)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs.tensors()):
        y, final = _SelectiveScan.apply(*inputs)
        return y, final
    y, final, _ = _forward(inputs, keep=False)
    return y, final


class _Inputs(NamedTuple):
    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_state: Tensor | None
    reset: Tensor | None
    dt_softplus: bool
    reverse: bool

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Those that gradients flow to, in order."""
        return self[:9]

    def real(self) -> torch.dtype:
        """The type of the computation."""
        return torch.float64 if any(t.dtype == torch.float64 for t in self[:5]) else torch.float32


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        inputs = _Inputs(*args)
        y, final, kept = _forward(inputs, keep=True)
        ctx.save_for_backward(*inputs.tensors(), inputs.reset, kept)
        ctx.flags = inputs.dt_softplus, inputs.reverse
        return y, final

    @staticmethod
    def backward(ctx: Any, gy: Tensor, g_final: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        *tensors, kept = ctx.saved_tensors
        inputs = _Inputs(*tensors, *ctx.flags)
        pairs = zip(inputs.tensors(), _backward(inputs, kept, gy, g_final), strict=True)
        return (*(None if t is None else g.to(t.dtype) for t, g in pairs), None, None, None)


def _forward(inputs: _Inputs, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the states that the backward starts its chunks from (none unless ``keep``)."""
    u, dt, A, B, C, D, z, dt_bias, initial, reset, dt_softplus, reverse = inputs
    real = inputs.real()
    (batch, length, channels), states = u.shape, A.shape[1]
    y, final = u.new_empty(u.shape, dtype=real), u.new_empty(batch, channels, states, dtype=real)
    shape = (batch, -(-channels // LANES), -(-length // CHUNK), states, LANES)
    kept = u.new_empty(shape if keep else (0,) * 5, dtype=real)
    tokens, strides = flat_tokens([u, dt, z, B, C], real)
    block, blocks = _blocks(channels)
    arguments = (
        *(
            block,
            dt_softplus,
            reverse,
            *tokens,
            strides,
            _scaled(A, real),
            as_array(D, real, 1),
            as_array(dt_bias, real, 1),
        ),
        *(as_array(initial, real, 3), as_array(reset, torch.bool, 2), y.numpy(), final.numpy(), kept.numpy()),
    )
    share(lambda first, end: cpu_kernels.forward(first, end, *arguments), batch * blocks)
    return y.to(u.dtype), final, kept


def _backward(inputs: _Inputs, kept: Tensor, gy: Tensor, g_final: Tensor) -> list[Tensor]:
    """The gradient of each of ``inputs.tensors()``."""
    u, dt, A, B, C, D, z, dt_bias, _, reset, dt_softplus, reverse = inputs
    real = inputs.real()
    (batch, length, channels), states = u.shape, A.shape[1]
    tokens, strides = flat_tokens([u, dt, z, B, C, gy], real)
    block, blocks = _blocks(channels)
    g_u, g_dt = (u.new_empty(u.shape, dtype=real) for _ in range(2))
    g_z = u.new_empty((0, 0, 0) if z is None else u.shape, dtype=real)
    g_B, g_C = (torch.from_numpy(np.zeros((blocks, batch, length, states), kept.numpy().dtype)) for _ in range(2))
    g_A = u.new_empty(batch, channels, states, dtype=torch.float64)
    g_D, g_bias = (u.new_empty(batch, channels, dtype=torch.float64) for _ in range(2))
    g_initial = u.new_empty(batch, channels, states, dtype=real)
    results = (g_u, g_dt, g_z, g_B, g_C, g_A, g_D, g_bias, g_initial)
    arguments = (
        *(
            block,
            dt_softplus,
            reverse,
            *tokens,
            strides,
            _scaled(A, real),
            as_array(D, real, 1),
            as_array(dt_bias, real, 1),
        ),
        *(as_array(reset, torch.bool, 2), kept.numpy(), as_array(g_final, real, 3), *(g.numpy() for g in results)),
    )
    share(lambda first, end: cpu_kernels.backward(first, end, *arguments), batch * blocks)
    return [
        g_u,
        g_dt,
        sum_parts(g_A),
        sum_parts(g_B),
        sum_parts(g_C),
        sum_parts(g_D),
        g_z,
        sum_parts(g_bias),
        g_initial,
    ]


def _blocks(channels: int) -> tuple[int, int]:
    """The channels of a block, a multiple of LANES, and the number of blocks."""
    block = -(-channels // (LANES * _MOST_BLOCKS)) * LANES
    return block, -(-channels // block)


def _scaled(A: Tensor, real: torch.dtype) -> NDArray:
    """A log2(e), which turns e^(dt A) into a power of two."""
    return (A.detach().double() * LOG2E).to(real).contiguous().numpy()
