"""The short convolution on a CPU: torch's side of `cpu_kernels`. The backward keeps only its inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genomamba.kernels.causal_conv1d import cpu_kernels
from genomamba.kernels.causal_conv1d.cpu_kernels import CHUNK
from genomamba.kernels.causal_conv1d.reference import causal_conv1d_reference, leaving_state
from genomamba.kernels.cpu_tensors import as_array, flat_tokens, refuse_second_derivatives, sum_parts
from genomamba.kernels.cpu_threads import share

# Spans of time, the unit of parallel work: their number follows from L alone, so that neither the threads
# nor the batch change a bit.
_MOST_SPANS = 16


def causal_conv1d_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.causal_conv1d`. Computes in fp64 where x or weight is, in fp32 otherwise."""
    if x.numel() == 0:
        return causal_conv1d_reference(x, weight, bias, silu, initial_state, reset, reverse)
    inputs = _Inputs(x, weight, bias, initial_state, reset, silu, reverse)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs.tensors()):
        y = _CausalConv1d.apply(*inputs)
    else:
        y = _forward(inputs)
    return y, leaving_state(x, weight.shape[1] - 1, initial_state, reset, reverse)


class _Inputs(NamedTuple):
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None
    reset: Tensor | None
    silu: bool
    reverse: bool

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Those that gradients flow to, in order."""
        return self[:4]

    def real(self) -> torch.dtype:
        """The type of the computation."""
        return torch.float64 if torch.float64 in (self.x.dtype, self.weight.dtype) else torch.float32


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        inputs = _Inputs(*args)
        ctx.save_for_backward(*inputs.tensors(), inputs.reset)
        ctx.flags = inputs.silu, inputs.reverse
        return _forward(inputs)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        inputs = _Inputs(*ctx.saved_tensors, *ctx.flags)
        pairs = zip(inputs.tensors(), _backward(inputs, gy), strict=True)
        return (*(None if t is None else g.to(t.dtype) for t, g in pairs), None, None, None)


def _forward(inputs: _Inputs) -> Tensor:
    x, weight, bias, initial, reset, silu, reverse = inputs
    real = inputs.real()
    y = x.new_empty(x.shape, dtype=real)
    (flat,), strides = flat_tokens([x], real)
    span, spans = _spans(x.shape[1])
    arguments = (
        *(span, silu, reverse, flat, strides, as_array(weight, real, 2), as_array(bias, real, 1)),
        *(as_array(initial, real, 3), as_array(reset, torch.bool, 2), y.numpy()),
    )
    share(lambda first, end: cpu_kernels.forward(first, end, *arguments), x.shape[0] * spans)
    return y.to(x.dtype)


def _backward(inputs: _Inputs, gy: Tensor) -> list[Tensor]:
    """The gradient of each of ``inputs.tensors()``."""
    x, weight, bias, initial, reset, silu, reverse = inputs
    real = inputs.real()
    flat, strides = flat_tokens([x, gy], real)
    span, spans = _spans(x.shape[1])
    tasks = x.shape[0] * spans
    g_x = x.new_empty(x.shape, dtype=real)
    g_weight = x.new_zeros(tasks, *weight.shape, dtype=torch.float64)
    g_bias = x.new_zeros(tasks, x.shape[2], dtype=torch.float64)
    g_initial = x.new_empty((0, 0, 0) if initial is None else initial.shape, dtype=real)
    results = (g_x, g_weight, g_bias, g_initial)
    arguments = (
        *(span, silu, reverse, *flat, strides, as_array(weight, real, 2), as_array(bias, real, 1)),
        *(as_array(initial, real, 3), as_array(reset, torch.bool, 2), *(g.numpy() for g in results)),
    )
    share(lambda first, end: cpu_kernels.backward(first, end, *arguments), tasks)
    return [g_x, sum_parts(g_weight), sum_parts(g_bias), g_initial]


def _spans(length: int) -> tuple[int, int]:
    """The steps of a span, a multiple of CHUNK, and the number of spans."""
    span = -(-length // (CHUNK * _MOST_SPANS)) * CHUNK
    return span, -(-length // span)
