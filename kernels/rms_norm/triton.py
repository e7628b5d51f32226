"""RMSNorm with its residual addition on a GPU: one pass forward, one backward, deterministic."""

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

from genomamba.kernels.rms_norm import triton_kernels

_PARTS = 4096  # programs, and partial sums, of the weight's gradient


def rms_norm_triton(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.rms_norm`; sums in fp32.

    Raises:
        KernelUnavailableError: no GPU, or fp64 inputs.
    """
    if x.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise KernelUnavailableError(
            f"impl='triton': the tensors are on {x.device} and the kernel needs an NVIDIA GPU; "
            "move them to 'cuda', or use impl='auto'"
        )
    if torch.float64 in (x.dtype, weight.dtype, None if residual is None else residual.dtype):
        raise KernelUnavailableError("impl='triton': the kernel computes in fp32; use impl='reference' for fp64")
    normed, stream = _norm(x, weight, residual, eps)
    return normed, stream


def norm_forward(
    x: Tensor,
    weight: Tensor,
    residual: Tensor | None,
    eps: float,
    dtype: torch.dtype | None = None,
    *,
    keep_stream: bool = True,
) -> tuple[Tensor, Tensor]:
    """As `api.rms_norm`; the normed stream in ``dtype``, the other result x itself without ``keep_stream``."""
    x = x.contiguous()
    normed = torch.empty_like(x, dtype=dtype)
    stream = torch.empty_like(x, dtype=torch.float32) if keep_stream else x
    channels = x.shape[-1]
    count = x.numel() // max(1, channels)
    if count:
        residual = None if residual is None else residual.contiguous()
        width, rows, warps = _tile(channels)
        with torch.cuda.device_of(x):
            triton_kernels.norm_kernel.launch(
                (triton.cdiv(count, rows),),
                (x, weight, x if residual is None else residual, normed, stream),
                (count, channels, eps),
                WIDTH=width, ROWS=rows, HAS_RESIDUAL=residual is not None, KEEP=keep_stream, num_warps=warps,
            )  # fmt: skip
    return normed, stream


def norm_backward(
    d_normed: Tensor,
    d_stream: Tensor | None,
    stream: Tensor,
    weight: Tensor,
    eps: float,
    narrow: torch.dtype | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradient of the stream, fp32, the same in dtype ``narrow`` if one is given, and of the weight, fp32."""
    d_normed = d_normed.contiguous()
    d_stream = None if d_stream is None else d_stream.contiguous()
    channels = stream.shape[-1]
    out = torch.empty_like(stream)
    narrow_out = None if narrow is None else torch.empty_like(stream, dtype=narrow)
    width, rows, warps = _tile(channels)
    count = stream.numel() // max(1, channels)
    if not count:
        return out, narrow_out, stream.new_zeros(channels)
    parts = min(_PARTS, triton.cdiv(count, rows))
    d_weight = stream.new_empty((parts, channels))
    with torch.cuda.device_of(stream):
        triton_kernels.norm_backward_kernel.launch(
            (parts,),
            (
                d_normed, stream if d_stream is None else d_stream, stream, weight, out,
                out if narrow_out is None else narrow_out, d_weight,
            ),
            (count, channels, eps, triton.cdiv(triton.cdiv(count, rows), parts)),
            WIDTH=width, ROWS=rows, HAS_STREAM=d_stream is not None, NARROW=narrow is not None, num_warps=warps,
        )  # fmt: skip
    return out, narrow_out, d_weight.sum(0)


@torch.library.custom_op("genomamba::rms_norm", mutates_args=())
def _norm(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return norm_forward(x, weight, residual, eps)


@_norm.register_fake
def _norm_shapes(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.float32)


@torch.library.custom_op("genomamba::rms_norm_backward", mutates_args=())
def _norm_backward(
    d_normed: Tensor | None, d_stream: Tensor | None, stream: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the stream, fp32, and of the weight."""
    if d_normed is None:
        d_normed = torch.zeros_like(stream)
    out, _, d_weight = norm_backward(d_normed, d_stream, stream, weight, eps, None)
    return out, d_weight.to(weight.dtype)


@_norm_backward.register_fake
def _norm_backward_shapes(
    d_normed: Tensor | None, d_stream: Tensor | None, stream: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return stream.new_empty(stream.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, residual, ctx.eps = inputs
    ctx.dtypes = (x.dtype, None if residual is None else residual.dtype)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], weight)


def _backward(ctx: Any, d_normed: Tensor | None, d_stream: Tensor | None) -> tuple[Tensor | None, ...]:
    stream, weight = ctx.saved_tensors
    gradient, d_weight = _norm_backward(d_normed, d_stream, stream, weight, ctx.eps)
    x_dtype, residual_dtype = ctx.dtypes
    return gradient.to(x_dtype), d_weight, None if residual_dtype is None else gradient.to(residual_dtype), None


def _no_second_backward(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("rms_norm: impl='triton' has no second derivative; use impl='reference' for double backward")


_norm.register_autograd(_backward, setup_context=_save)
_norm_backward.register_autograd(_no_second_backward)


def _tile(channels: int) -> tuple[int, int, int]:
    """Channels, rows and warps of one tile. Up to 1,024 channels a row lies in one warp, whose sums need no barrier."""
    width = triton.next_power_of_2(channels)
    return width, max(1, 512 // width), max(1, width // 1024)
