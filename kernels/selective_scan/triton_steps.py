"""What one step of the scan is made of, in the forward's and the backward's kernels.

Numbers that change from call to call are not compiled into a kernel (`do_not_specialize`), or each would
compile anew.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.triton_math import LOG2E, softplus


@triton.jit
def load_row(ptr, mask, MASKED: tl.constexpr):
    """One token's channels, fp32; zero where masked."""
    if MASKED:
        return tl.load(ptr, mask=mask, other=0.0).to(tl.float32)
    return tl.load(ptr).to(tl.float32)


@triton.jit
def store_row(ptr, value, mask, MASKED: tl.constexpr):
    if MASKED:
        tl.store(ptr, value, mask=mask)
    else:
        tl.store(ptr, value)


@triton.jit
def columns(tile):
    """The columns of a tile, a power of two of them from 2 on, as vectors."""
    ROWS: tl.constexpr = tile.shape[0]
    HALF: tl.constexpr = tile.shape[1] // 2
    even, odd = tl.split(tl.reshape(tile, (ROWS, HALF, 2)))
    if HALF == 1:
        out = (tl.reshape(even, (ROWS,)), tl.reshape(odd, (ROWS,)))
    else:
        left, right = columns(even), columns(odd)
        out = ()
        for i in tl.static_range(HALF):
            out = out + (left[i], right[i])
    return out


@triton.jit
def load_group(ptr, stride, i, steps, live, U: tl.constexpr, MASK_L: tl.constexpr, MASKED: tl.constexpr):
    """The rows of U steps from step i on, as they lie in memory; `ptr` and `live` are of the first step's channels.

    One load, so that a lane's part is wide enough for a copy to shared memory that runs by itself.
    """
    step = tl.arange(0, U)[:, None]
    at = ptr[None, :] + step * stride
    if MASKED:
        valid = live[None, :] & (i + step < steps) if MASK_L else live[None, :] & (step >= 0)
        tile = tl.load(at, mask=valid, other=0.0)
    else:
        tile = tl.load(at)
    return columns(tl.trans(tile))


@triton.jit
def load_rows(row, N: tl.constexpr, NP: tl.constexpr):
    """B and C of one step, N numbers each, from a row of `coupling`: all of them in every lane."""
    k = tl.arange(0, 2 * N)
    both = tl.load(row + k // N * NP + k % N)
    row_b, row_c = tl.split(tl.permute(tl.reshape(both, (2, N)), (1, 0)))
    row_b = columns(tl.broadcast_to(tl.reshape(row_b, (1, N)), (32, N)))
    row_c = columns(tl.broadcast_to(tl.reshape(row_c, (1, N)), (32, N)))
    return row_b, row_c


@triton.jit
def load_decay(A, d, mask, n0, a_sd, a_sn, n_real, N: tl.constexpr):
    """A log2(e) of N states from n0 on; zero beyond the real ones, whose coupling is zero too."""
    out = ()
    for n in tl.static_range(N):
        ptr = A + d * a_sd + (n0 + n) * a_sn
        out = out + (tl.load(ptr, mask=mask & (n0 + n < n_real), other=0.0).to(tl.float32) * LOG2E,)
    return out


@triton.jit
def load_state(ptr, D, mask, N: tl.constexpr, MASKED: tl.constexpr):
    """N rows of D channels, `ptr` at this lane's channel of the first."""
    out = ()
    for n in tl.static_range(N):
        out = out + (load_row(ptr + n * D, mask, MASKED),)
    return out


@triton.jit
def store_state(ptr, h, D, mask, N: tl.constexpr):
    for n in tl.static_range(N):
        tl.store(ptr + n * D, h[n], mask=mask)


@triton.jit
def zeros_like_state(d, N: tl.constexpr):
    out = ()
    for _ in tl.static_range(N):
        out = out + (tl.zeros(d.shape, tl.float32),)
    return out


@triton.jit
def step_size(raw, bias, valid, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, MASKED: tl.constexpr):
    """dt from its raw value; zero on masked steps, which then leave the state as it is."""
    dt = raw
    if HAS_BIAS:
        dt = dt + bias
    if SOFTPLUS:
        dt = softplus(dt)
    if MASKED:
        dt = tl.where(valid, dt, 0.0)
    return dt


@triton.jit
def advance(h, dt, x, decay, row, N: tl.constexpr):
    """One step of the recurrence: exp(dt A) h + x B."""
    out = ()
    for n in tl.static_range(N):
        out = out + (tl.exp2(dt * decay[n]) * h[n] + x * row[n],)
    return out


@triton.jit
def cut(h, wall, N: tl.constexpr):
    """Zero where there is a wall, by selection: no NaN or inf passes."""
    out = ()
    for n in tl.static_range(N):
        out = out + (tl.where(wall != 0, 0.0, h[n]),)
    return out


@triton.jit
def wall_before(walls, b, i, L):
    return tl.load(walls + b * L + i, mask=i < L, other=0)
