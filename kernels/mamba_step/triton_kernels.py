"""The kernels of one token: matrix times vector, and what stands between two of them.

A program reads a whole vector and gives some rows of the product. Sums are fp32; weights may have any dtype.
"""

from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.triton_math import softplus


@triton.jit
def silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def normed_product_kernel(
    stream, gain, weight, out, width, rows, eps, WIDTH: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """weight · RMSNorm(stream)."""
    b = tl.program_id(1).to(tl.int64)
    d, r = tl.arange(0, WIDTH), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live, real = d < width, r < rows
    x = tl.load(stream + b * width + d, mask=live, other=0.0)
    w = tl.load(weight + r[:, None] * width + d[None, :], mask=real[:, None] & live[None, :], other=0.0)
    x = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * tl.load(gain + d, mask=live, other=0.0).to(tl.float32)
    tl.store(out + b * rows + r, tl.sum(w.to(tl.float32) * x[None, :], 1), mask=real)


@triton.jit
def added_product_kernel(x, weight, stream, width, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """stream += weight · x."""
    b = tl.program_id(1).to(tl.int64)
    d, r = tl.arange(0, WIDTH), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live, real = d < width, r < rows
    value = tl.load(x + b * width + d, mask=live, other=0.0)
    w = tl.load(weight + r[:, None] * width + d[None, :], mask=real[:, None] & live[None, :], other=0.0)
    before = tl.load(stream + b * rows + r, mask=real, other=0.0)
    tl.store(stream + b * rows + r, before + tl.sum(w.to(tl.float32) * value[None, :], 1), mask=real)


@triton.jit
def convolved(p, ring, taps, bias, b, d, live, slot, inner, TAPS: tl.constexpr, HAS_BIAS: tl.constexpr):
    """SiLU of the convolution at this token, of channels d; its older inputs lie in a ring of TAPS tokens."""
    total = tl.load(p + b * 2 * inner + d, mask=live, other=0.0)
    total = total * tl.load(taps + d * TAPS + TAPS - 1, mask=live, other=0.0).to(tl.float32)
    for m in tl.static_range(1, TAPS):
        past = tl.load(ring + (b * TAPS + (slot + TAPS - m) % TAPS) * inner + d, mask=live, other=0.0)
        total += past * tl.load(taps + d * TAPS + TAPS - 1 - m, mask=live, other=0.0).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + d, mask=live, other=0.0).to(tl.float32)
    return silu(total)


@triton.jit
def rows_times(weight, first, count, d, live, u, inner, ROWS: tl.constexpr):
    """Rows `first` to `first + count` of a matrix times the channels d of a vector."""
    r = tl.arange(0, ROWS)
    mask = (r < count)[:, None] & live[None, :]
    w = tl.load(weight + (first + r)[:, None] * inner + d[None, :], mask=mask, other=0.0)
    return tl.sum(w.to(tl.float32) * u[None, :], 1)


@triton.jit
def mix_kernel(
    p, ring, taps, bias, x_weight, dt_weight, dt_bias, A, D, state, y, turn, rank, states,
    inner: tl.constexpr, TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    RANK: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Convolution, step size, scan and gate of BLOCK channels.

    Every program needs dt, B and C, which are sums over all channels, and computes them for itself: a second kernel
    would take longer. The ring has one place more than is read, so that no program writes what another reads.
    """
    b = tl.program_id(1).to(tl.int64)
    slot = (tl.load(turn) + TAPS - 1) % TAPS
    low = tl.zeros((RANK,), tl.float32)
    B = tl.zeros((N,), tl.float32)
    C = tl.zeros((N,), tl.float32)
    for start in range(0, inner, CHUNK):
        d = start + tl.arange(0, CHUNK)
        live = d < inner
        u = convolved(p, ring, taps, bias, b, d, live, slot, inner, TAPS, HAS_BIAS)
        low += rows_times(x_weight, 0, rank, d, live, u, inner, RANK)
        B += rows_times(x_weight, rank, states, d, live, u, inner, N)
        C += rows_times(x_weight, rank + states, states, d, live, u, inner, N)

    d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, r = tl.arange(0, N), tl.arange(0, RANK)
    live = d < inner
    u = convolved(p, ring, taps, bias, b, d, live, slot, inner, TAPS, HAS_BIAS)
    own = tl.load(p + b * 2 * inner + d, mask=live, other=0.0)
    tl.store(ring + (b * TAPS + slot) * inner + d, own, mask=live)
    w = tl.load(dt_weight + d[:, None] * rank + r[None, :], mask=live[:, None] & (r < rank)[None, :], other=0.0)
    dt = tl.sum(w.to(tl.float32) * low[None, :], 1)
    dt = softplus(dt + tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32))
    mask = live[:, None] & (n < states)[None, :]
    at = b * inner * states + d[:, None] * states + n[None, :]
    decay = tl.exp2(dt[:, None] * tl.load(A + d[:, None] * states + n[None, :], mask=mask, other=0.0))
    h = decay * tl.load(state + at, mask=mask, other=0.0) + (dt * u)[:, None] * B[None, :]
    tl.store(state + at, h, mask=mask)
    out = tl.sum(h * C[None, :], 1) + tl.load(D + d, mask=live, other=0.0).to(tl.float32) * u
    gate = tl.load(p + (b * 2 + 1) * inner + d, mask=live, other=0.0)
    tl.store(y + b * inner + d, out * silu(gate), mask=live)


@triton.jit
def draw_kernel(
    logits, barred, done, token, turn, seed, vocabulary, temperature, top_p, top_k, pad,
    V: tl.constexpr, GREEDY: tl.constexpr,
):  # fmt: skip
    """One token of one row: temperature, the top_k most probable, the fewest whose probabilities sum to top_p."""
    b = tl.program_id(0)
    v = tl.arange(0, V)
    x = tl.load(logits + b * vocabulary + v, mask=v < vocabulary, other=float("-inf"))
    x += tl.load(barred + v, mask=v < vocabulary, other=float("-inf"))
    # Of equals the one with the smaller id comes first.
    ahead = (x[None, :] > x[:, None]) | ((x[None, :] == x[:, None]) & (v[None, :] < v[:, None]))
    rank = tl.sum(ahead.to(tl.int32), 1)
    if GREEDY:
        chosen = tl.sum(tl.where(rank == 0, v, 0), 0)
    else:
        odds = tl.exp((x - tl.max(x, 0)) / temperature)
        odds = odds / tl.sum(odds, 0)
        before = tl.sum(tl.where(ahead, odds[None, :], 0.0), 1)
        odds = tl.where(((before < top_p) & (rank < top_k)) | (rank == 0), odds, 0.0)
        upto = tl.cumsum(odds, 0)
        counter = tl.load(turn) * tl.num_programs(0) + b
        aim = tl.rand(tl.load(seed), counter) * tl.sum(odds, 0)
        # The first token whose share ends beyond the aim; the last of all if rounding leaves none.
        chosen = tl.min(tl.where((upto > aim) & (odds > 0), v, V), 0)
        chosen = tl.where(chosen == V, tl.max(tl.where(odds > 0, v, 0), 0), chosen)
    tl.store(token + b, tl.where(tl.load(done + b) != 0, pad, chosen).to(tl.int64))
