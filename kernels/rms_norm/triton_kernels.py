"""The kernels of RMSNorm with its residual addition."""

from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.launching import Kernel


@Kernel
@triton.jit
def norm_kernel(
    x, weight, residual, normed, stream, count, channels, eps,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    mask = (row < count)[:, None] & (d < channels)[None, :]
    at = row[:, None] * channels + d[None, :]
    total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        total = tl.load(residual + at, mask=mask, other=0.0).to(tl.float32) + total
    if KEEP:
        tl.store(stream + at, total, mask=mask)
    scale = tl.rsqrt(tl.sum(total * total, 1) / channels + eps)
    gain = tl.load(weight + d, mask=d < channels, other=0.0).to(tl.float32)
    tl.store(normed + at, total * scale[:, None] * gain[None, :], mask=mask)


@Kernel
@triton.jit
def norm_backward_kernel(
    d_normed, d_stream, stream, weight, out, narrow_out, d_weight, count, channels, eps, blocks,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, HAS_STREAM: tl.constexpr, NARROW: tl.constexpr,
):  # fmt: skip
    """With s the reciprocal root mean square and r the stream: s (w dy - r s² mean(w dy r)), and Σ dy r s.

    With NARROW the gradient is also written to `narrow_out`, in its dtype.
    """
    d = tl.arange(0, WIDTH)
    gain = tl.load(weight + d, mask=d < channels, other=0.0).to(tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * blocks * ROWS
    for block in range(0, blocks):
        row = first + block * ROWS + tl.arange(0, ROWS)
        mask = (row < count)[:, None] & (d < channels)[None, :]
        at = row[:, None] * channels + d[None, :]
        r = tl.load(stream + at, mask=mask, other=0.0)
        dy = tl.load(d_normed + at, mask=mask, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(r * r, 1) / channels + eps)
        unit = r * scale[:, None]
        pull = dy * gain[None, :]
        gradient = scale[:, None] * (pull - unit * (tl.sum(pull * unit, 1) / channels)[:, None])
        if HAS_STREAM:
            gradient += tl.load(d_stream + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(out + at, gradient, mask=mask)
        if NARROW:
            tl.store(narrow_out + at, gradient, mask=mask)
        total += tl.sum(dy * unit, 0)
    tl.store(d_weight + tl.program_id(0) * channels + d, total, mask=d < channels)
