"""The kernels of the gated norm. A program norms tokens in one group of channels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gated_norm_kernel(
    y, z, weight, out, count, channels, size, y_s, z_s, eps,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, NORM_FIRST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    within = tl.arange(0, WIDTH)
    d = tl.program_id(1) * size + within
    mask = (row < count)[:, None] & (within < size)[None, :]
    value = tl.load(y + row[:, None] * y_s + d[None, :], mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(z + row[:, None] * z_s + d[None, :], mask=mask, other=0.0).to(tl.float32)
    gate = gate / (1.0 + tl.exp(-gate))
    if not NORM_FIRST:
        value = value * gate
    value = value * tl.rsqrt(tl.sum(value * value, 1) / size + eps)[:, None]
    value = value * tl.load(weight + d, mask=within < size, other=0.0).to(tl.float32)[None, :]
    if NORM_FIRST:
        value = value * gate
    tl.store(out + row[:, None] * channels + d[None, :], value, mask=mask)


@triton.jit
def gated_norm_backward_kernel(
    d_out, y, z, weight, dy, dz, d_weight, count, channels, size, y_s, z_s, dz_s, eps, blocks,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, NORM_FIRST: tl.constexpr,
):  # fmt: skip
    """Gradients of y and z, and this program's part of the weight's, from `blocks` times ROWS tokens."""
    within = tl.arange(0, WIDTH)
    d = tl.program_id(1) * size + within
    gain = tl.load(weight + d, mask=within < size, other=0.0).to(tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * blocks * ROWS
    for block in range(0, blocks):
        row = first + block * ROWS + tl.arange(0, ROWS)
        mask = (row < count)[:, None] & (within < size)[None, :]
        value = tl.load(y + row[:, None] * y_s + d[None, :], mask=mask, other=0.0).to(tl.float32)
        lever = tl.load(z + row[:, None] * z_s + d[None, :], mask=mask, other=0.0).to(tl.float32)
        asked = tl.load(d_out + row[:, None] * channels + d[None, :], mask=mask, other=0.0).to(tl.float32)
        open_ = 1.0 / (1.0 + tl.exp(-lever))
        gate = lever * open_
        slope = open_ * (1.0 + lever * (1.0 - open_))
        normed = value if NORM_FIRST else value * gate
        scale = tl.rsqrt(tl.sum(normed * normed, 1) / size + eps)
        unit = normed * scale[:, None]
        pull = asked * gain[None, :] * gate if NORM_FIRST else asked * gain[None, :]
        inner = scale[:, None] * (pull - unit * (tl.sum(pull * unit, 1) / size)[:, None])
        if NORM_FIRST:
            total += tl.sum(asked * gate * unit, 0)
            value_grad, gate_grad = inner, asked * unit * gain[None, :]
        else:
            total += tl.sum(asked * unit, 0)
            value_grad, gate_grad = inner * gate, inner * value
        at = row[:, None] * channels + d[None, :]
        tl.store(dy + at, value_grad, mask=mask)
        tl.store(dz + row[:, None] * dz_s + d[None, :], gate_grad * slope, mask=mask)
    tl.store(d_weight + tl.program_id(0) * channels + d, total, mask=within < size)
