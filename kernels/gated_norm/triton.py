"""The gated norm on a GPU: one pass forward, one backward, deterministic."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError

if importlib.util.find_spec("triton") is None:
    raise KernelUnavailableError(
        "impl='triton': the package triton is not installed; `pip install triton` (Linux), or use impl='reference'"
    )

import triton

from genomamba.kernels.gated_norm import triton_kernels

_PARTS = 1024  # programs, and partial sums, of the weight's gradient


def gated_norm_triton(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool) -> Tensor:
    """Shapes as in `api.gated_norm`; sums in fp32.

    Raises:
        KernelUnavailableError: no GPU, or fp64 inputs.
    """
    if y.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise KernelUnavailableError(
            f"impl='triton': the tensors are on {y.device} and the kernel needs an NVIDIA GPU; "
            "move them to 'cuda', or use impl='auto'"
        )
    if torch.float64 in (y.dtype, z.dtype, weight.dtype):
        raise KernelUnavailableError("impl='triton': the kernel computes in fp32; use impl='reference' for fp64")
    return _norm(y, z, weight, groups, eps, norm_before_gate)


def norm_forward(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool) -> Tensor:
    """As `api.gated_norm`."""
    out = y.new_empty(y.shape)
    if y.numel():
        y, z = _rows(y), _rows(z)
        channels = y.shape[-1]
        size, width, rows = _tile(channels, groups)
        count = y.shape[0] * y.shape[1]
        with torch.cuda.device_of(y):
            triton_kernels.gated_norm_kernel[(triton.cdiv(count, rows), groups)](
                y, z, weight, out, count, channels, size, y.stride(1), z.stride(1), eps,
                WIDTH=width, ROWS=rows, NORM_FIRST=norm_before_gate, num_warps=4,
            )  # fmt: skip
    return out


def norm_backward(
    d_out: Tensor,
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    groups: int,
    eps: float,
    norm_before_gate: bool,
    dz: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients of y and, fp32, of the weight; that of z goes to ``dz``, whose tokens lie at one stride."""
    dy = y.new_empty(y.shape)
    if not y.numel():
        return dy, torch.zeros_like(weight, dtype=torch.float32)
    y, z, d_out = _rows(y), _rows(z), d_out.contiguous()
    channels = y.shape[-1]
    size, width, rows = _tile(channels, groups)
    count = y.shape[0] * y.shape[1]
    parts = min(_PARTS, triton.cdiv(count, rows))
    d_weight = y.new_empty((parts, channels), dtype=torch.float32)
    with torch.cuda.device_of(y):
        triton_kernels.gated_norm_backward_kernel[(parts, groups)](
            d_out, y, z, weight, dy, dz, d_weight, count, channels, size, y.stride(1), z.stride(1), dz.stride(1), eps,
            triton.cdiv(triton.cdiv(count, rows), parts),
            WIDTH=width, ROWS=rows, NORM_FIRST=norm_before_gate, num_warps=4,
        )  # fmt: skip
    return dy, d_weight.sum(0)


@torch.library.custom_op("genomamba::gated_norm", mutates_args=())
def _norm(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool) -> Tensor:
    return norm_forward(y, z, weight, groups, eps, norm_before_gate)


@_norm.register_fake
def _norm_shapes(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool) -> Tensor:
    return y.new_empty(y.shape)


@torch.library.custom_op("genomamba::gated_norm_backward", mutates_args=())
def _norm_backward(
    d_out: Tensor, y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of y, z and the weight."""
    dz = z.new_empty(z.shape)
    dy, d_weight = norm_backward(d_out, y, z, weight, groups, eps, norm_before_gate, dz)
    return dy, dz, d_weight.to(weight.dtype)


@_norm_backward.register_fake
def _norm_backward_shapes(
    d_out: Tensor, y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), z.new_empty(z.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups, ctx.eps, ctx.norm_before_gate = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _norm_backward(d_out, *ctx.saved_tensors, ctx.groups, ctx.eps, ctx.norm_before_gate)
    return (*gradients, None, None, None)


def _no_second_backward(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("gated_norm: impl='triton' has no second derivative; use impl='reference'")


_norm.register_autograd(_backward, setup_context=_save)
_norm_backward.register_autograd(_no_second_backward)


def _rows(t: Tensor) -> Tensor:
    """With tokens at one stride, as the kernels walk them; a slice of a wider projection is."""
    even = t.stride(-1) == 1 and (t.shape[0] == 1 or t.stride(0) == t.shape[1] * t.stride(1))
    return t if even else t.contiguous()


def _tile(channels: int, groups: int) -> tuple[int, int, int]:
    size = channels // groups
    width = triton.next_power_of_2(size)
    return size, width, max(1, 2048 // width)
