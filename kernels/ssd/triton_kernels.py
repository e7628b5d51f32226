"""The kernels of Mamba-2's scan: chunks of T steps through matrix products, a carry between them.

Steps are counted in scan order: step i is token i, or token L - 1 - i with `REVERSE`. A *wall* before a step,
the ``reset`` of the token on its later side, cuts the recurrence there. S_i is the sum of the log decays (base 2)
of a chunk's steps up to i; triton.py and the README derive what is done with it.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.triton_math import LOG2E


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def tile(ptr, token, t_stride, live, size, WIDTH: tl.constexpr):
    """Rows `token` of WIDTH channels, zero beyond the real ones."""
    d = tl.arange(0, WIDTH)
    return tl.load(ptr + token[:, None] * t_stride + d[None, :], mask=live[:, None] & (d < size)[None, :], other=0.0)


@triton.jit
def state_tile(ptr, width, states, P: tl.constexpr, N: tl.constexpr):
    """One head's state (P, N), fp32."""
    p, n = tl.arange(0, P), tl.arange(0, N)
    mask = (p < width)[:, None] & (n < states)[None, :]
    return tl.load(ptr + p[:, None] * states + n[None, :], mask=mask, other=0.0)


@triton.jit
def split(x):
    """fp64 as a sum of two fp32."""
    high = x.to(tl.float32)
    return high, (x - high.to(tl.float64)).to(tl.float32)


@triton.jit
def power_of_2(x):
    """Of an fp64, as fp32 without the error of an exponent rounded before."""
    high, low = split(x)
    return tl.exp2(high) * tl.exp2(low)


@triton.jit
def decay_kernel(
    step, A, reset, table, through, length, chunks, heads, s_sb, s_sl, r_sb, r_sl,
    T: tl.constexpr, ROWS: tl.constexpr, HAS_RESET: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """A table of each chunk's steps, and what becomes of a state on its way through a chunk.

    Rows: the step sizes s; S, which may be large where a difference of two of its entries is small, summed in fp64, as
    a sum of two numbers; the decay of the entering state up to a step, zero behind a wall; the decay from a step to
    the end, zero before a wall; and the walls up to a step.
    """
    pid = tl.program_id(0)
    head = pid % heads
    c = pid // heads % chunks
    b = (pid // heads // chunks).to(tl.int64)
    t = tl.arange(0, T)
    i = c.to(tl.int64) * T + t
    live = i < length
    token = length - 1 - i if REVERSE else i
    s = tl.load(step + b * s_sb + token * s_sl + head, mask=live, other=0.0)
    log_decay = s.to(tl.float64) * tl.load(A + head).to(tl.float64) * LOG2E
    total = tl.associative_scan(log_decay, 0, add)
    end = tl.sum(log_decay, 0)
    walls = tl.zeros_like(t)
    if HAS_RESET:
        later = token + 1 if REVERSE else token
        walls = tl.load(reset + b * r_sb + later * r_sl, mask=live & (later < length), other=0).to(tl.int32)
    number = tl.cumsum(walls, 0)
    count = tl.sum(walls, 0)
    place = (b * chunks + c) * heads + head
    row = table + place * ROWS * T + t
    high, low = split(total)
    tl.store(row, s)
    tl.store(row + T, high)
    tl.store(row + 2 * T, low)
    tl.store(row + 3 * T, tl.where(number == 0, power_of_2(total), 0.0))
    tl.store(row + 4 * T, tl.where(number == count, power_of_2(end - total), 0.0))
    tl.store(row + 5 * T, number.to(tl.float32))
    tl.store(through + place, tl.where(count == 0, power_of_2(end), 0.0))


@triton.jit
def within(row, T: tl.constexpr, HAS_RESET: tl.constexpr):
    """(T to, T from): the decay from one step of a chunk to another, zero where there is a wall between or no way."""
    t = tl.arange(0, T)
    high, low = tl.load(row + T + t), tl.load(row + 2 * T + t)
    difference = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    sees = t[:, None] >= t[None, :]
    if HAS_RESET:
        number = tl.load(row + 5 * T + t)
        sees = sees & (number[:, None] == number[None, :])
    return tl.exp2(tl.where(sees, difference, float("-inf")))


@triton.jit
def chunk_state_kernel(
    x, table, B, states_out, length, chunks, heads, per_group, width, states,
    x_sb, x_sl, x_sh, b_sb, b_sl, b_sg,
    T: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, N: tl.constexpr, REVERSE: tl.constexpr,
    ADJOINT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a chunk leaves when it begins from zero, Σ_j exp(S_T − S_j) s_j x_j B_jᵀ.

    With `ADJOINT`, x being dy and B being C: what its outputs ask of the state that enters it, Σ_i exp(S_i) dy_i C_iᵀ.
    """
    pid = tl.program_id(0)
    head = pid % heads
    c = pid // heads % chunks
    b = (pid // heads // chunks).to(tl.int64)
    t = tl.arange(0, T)
    i = c.to(tl.int64) * T + t
    live = i < length
    token = length - 1 - i if REVERSE else i
    place = (b * chunks + c) * heads + head
    row = table + place * ROWS * T + t
    weight = tl.load(row + 3 * T) if ADJOINT else tl.load(row) * tl.load(row + 4 * T)
    x_tile = tile(x + b * x_sb + head * x_sh, token, x_sl, live, width, P)
    B_tile = tile(B + b * b_sb + head // per_group * b_sg, token, b_sl, live, states, N)
    weighted = (x_tile.to(tl.float32) * weight[:, None]).to(x_tile.dtype)
    own = tl.dot(tl.trans(weighted), B_tile, input_precision=PRECISION)
    p, n = tl.arange(0, P), tl.arange(0, N)
    mask = (p < width)[:, None] & (n < states)[None, :]
    tl.store(states_out + place * width * states + p[:, None] * states + n[None, :], own, mask=mask)


@triton.jit
def carry_kernel(
    own, through, initial, final, chunks, heads, size, HAS_INITIAL: tl.constexpr, BACKWARD: tl.constexpr,
    U: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Chunk after chunk, h ← through · h + own; what stood before each chunk replaces its own. U chunks are loaded
    before any is computed, since each wait for memory is a long one."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    b = (tl.program_id(0) // heads).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = e < size
    at = (b * heads + head) * size + e
    h = tl.zeros((BLOCK,), tl.float32)
    if HAS_INITIAL:
        h = tl.load(initial + at, mask=mask, other=0.0)
    for base in range(0, chunks, U):
        values = ()
        factors = ()
        for u in tl.static_range(U):
            c = chunks - 1 - (base + u) if BACKWARD else base + u
            there = base + u < chunks
            place = (b * chunks + c) * heads + head
            values = values + (tl.load(own + place * size + e, mask=mask & there, other=0.0),)
            factors = factors + (tl.load(through + place, mask=there, other=1.0),)
        for u in tl.static_range(U):
            c = chunks - 1 - (base + u) if BACKWARD else base + u
            place = (b * chunks + c) * heads + head
            tl.store(own + place * size + e, h, mask=mask & (base + u < chunks))
            h = factors[u] * h + values[u]
    tl.store(final + at, h, mask=mask)


@triton.jit
def output_kernel(
    x, table, B, C, D, entering, y, length, chunks, heads, per_group, width, states,
    x_sb, x_sl, x_sh, b_sb, b_sl, b_sg, c_sb, c_sl, c_sg,
    T: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HAS_D: tl.constexpr,
    HAS_RESET: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y_i = Σ_j (C_i · B_j) M_ij s_j x_j + exp(S_i) h C_i + D x_i, from the true state that enters the chunk."""
    pid = tl.program_id(0)
    head = pid % heads
    c = pid // heads % chunks
    b = (pid // heads // chunks).to(tl.int64)
    t, p = tl.arange(0, T), tl.arange(0, P)
    i = c.to(tl.int64) * T + t
    live = i < length
    token = length - 1 - i if REVERSE else i
    place = (b * chunks + c) * heads + head
    row = table + place * ROWS * T
    C_tile = tile(C + b * c_sb + head // per_group * c_sg, token, c_sl, live, states, N)
    h = state_tile(entering + place * width * states, width, states, P, N)
    out = tl.dot(C_tile, tl.trans(h.to(C_tile.dtype)), input_precision=PRECISION) * tl.load(row + 3 * T + t)[:, None]
    B_tile = tile(B + b * b_sb + head // per_group * b_sg, token, b_sl, live, states, N)
    score = tl.dot(C_tile, tl.trans(B_tile), input_precision=PRECISION)
    score = score * within(row, T, HAS_RESET) * tl.load(row + t)[None, :]
    x_tile = tile(x + b * x_sb + head * x_sh, token, x_sl, live, width, P)
    out = tl.dot(score.to(x_tile.dtype), x_tile, out, input_precision=PRECISION)
    if HAS_D:
        out += x_tile.to(tl.float32) * tl.load(D + head * width + p, mask=p < width, other=0.0)[None, :]
    at = ((b * length + token) * heads + head)[:, None] * width + p[None, :]
    tl.store(y + at, out, mask=live[:, None] & (p < width)[None, :])


@triton.jit
def input_gradient_kernel(
    x, table, A, B, C, D, entering, dy, leaving, through, dx, dstep, dA, dD,
    length, chunks, heads, per_group, width, states,
    x_sb, x_sl, x_sh, b_sb, b_sl, b_sg, c_sb, c_sl, c_sg, g_sb, g_sl, g_sh, dx_sb, dx_sl,
    T: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HAS_D: tl.constexpr,
    HAS_RESET: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of x, of the step sizes, and a chunk's part of A's and D's, of one head.

    `entering` is h before the chunk, `leaving` the gradient of h after it.
    """
    pid = tl.program_id(0)
    head = pid % heads
    c = pid // heads % chunks
    b = (pid // heads // chunks).to(tl.int64)
    t = tl.arange(0, T)
    i = c.to(tl.int64) * T + t
    live = i < length
    token = length - 1 - i if REVERSE else i
    p = tl.arange(0, P)
    place = (b * chunks + c) * heads + head
    row = table + place * ROWS * T
    s = tl.load(row + t)
    B_tile = tile(B + b * b_sb + head // per_group * b_sg, token, b_sl, live, states, N)
    x_tile = tile(x + b * x_sb + head * x_sh, token, x_sl, live, width, P)

    # Through the state that leaves.
    g = state_tile(leaving + place * width * states, width, states, P, N)
    x_grad = tl.dot(B_tile, tl.trans(g.to(B_tile.dtype)), input_precision=PRECISION) * tl.load(row + 4 * T + t)[:, None]
    s_grad = tl.sum(x_grad * x_tile.to(tl.float32), 1)
    fed = s_grad * s
    x_grad = x_grad * s[:, None]

    # Through the state that enters.
    C_tile = tile(C + b * c_sb + head // per_group * c_sg, token, c_sl, live, states, N)
    dy_tile = tile(dy + b * g_sb + head * g_sh, token, g_sl, live, width, P)
    h = state_tile(entering + place * width * states, width, states, P, N)
    passed = tl.load(through + place) * tl.sum(tl.sum(h * g, 1), 0)
    given = tl.dot(C_tile, tl.trans(h.to(C_tile.dtype)), input_precision=PRECISION)
    crossing = tl.load(row + 3 * T + t) * tl.sum(given * dy_tile.to(tl.float32), 1)

    # Through the chunk's own tokens.
    score = tl.dot(C_tile, tl.trans(B_tile), input_precision=PRECISION) * within(row, T, HAS_RESET)
    pair = tl.dot(dy_tile, tl.trans(x_tile), input_precision=PRECISION) * score
    s_grad += tl.sum(pair, 0)
    # One matrix gives both sums: rounded apart they would not cancel. A step's pair with itself crosses nothing.
    pair = tl.where(t[:, None] > t[None, :], pair * s[None, :], 0.0)
    crossing += tl.sum(pair, 1) - tl.sum(pair, 0)
    x_grad = tl.dot(tl.trans((score * s[None, :]).to(dy_tile.dtype)), dy_tile, x_grad, input_precision=PRECISION)

    # A step's decay lies between all the pairs of steps that it parts: `crossing` is summed from the far end, `fed`
    # up to the step before.
    crossing = tl.associative_scan(crossing.to(tl.float64), 0, add, reverse=True)
    fed = fed.to(tl.float64)
    decay_grad = (crossing + tl.associative_scan(fed, 0, add) - fed).to(tl.float32) + passed
    decay_grad = tl.where(live, decay_grad, 0.0)
    s_at = (b * length + token) * heads + head
    tl.store(dstep + s_at, s_grad + tl.load(A + head) * decay_grad, mask=live)
    tl.store(dA + place, tl.sum(decay_grad * s, 0))
    if HAS_D:
        wide = dy_tile.to(tl.float32)
        x_grad += wide * tl.load(D + head * width + p, mask=p < width, other=0.0)[None, :]
        tl.store(dD + place * width + p, tl.sum(wide * x_tile.to(tl.float32), 0), mask=p < width)
    at = dx + b * dx_sb + head * width + token[:, None] * dx_sl + p[None, :]
    tl.store(at, x_grad, mask=live[:, None] & (p < width)[None, :])


@triton.jit
def coupling_gradient_kernel(
    x, table, B, C, entering, dy, leaving, dB, dC,
    length, chunks, heads, per_group, width, states,
    x_sb, x_sl, x_sh, b_sb, b_sl, b_sg, c_sb, c_sl, c_sg, g_sb, g_sl, g_sh, d_sb, d_sl,
    T: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a chunk's B and C, summed over the heads of a group in order."""
    groups = heads // per_group
    pid = tl.program_id(0)
    group = pid % groups
    c = pid // groups % chunks
    b = (pid // groups // chunks).to(tl.int64)
    t = tl.arange(0, T)
    i = c.to(tl.int64) * T + t
    live = i < length
    token = length - 1 - i if REVERSE else i
    B_tile = tile(B + b * b_sb + group * b_sg, token, b_sl, live, states, N)
    C_tile = tile(C + b * c_sb + group * c_sg, token, c_sl, live, states, N)
    B_grad = tl.zeros((T, N), tl.float32)
    C_grad = tl.zeros((T, N), tl.float32)
    for k in range(0, per_group):
        head = group * per_group + k
        place = (b * chunks + c) * heads + head
        row = table + place * ROWS * T
        x_tile = tile(x + b * x_sb + head * x_sh, token, x_sl, live, width, P)
        dy_tile = tile(dy + b * g_sb + head * g_sh, token, g_sl, live, width, P)
        asked = tl.dot(dy_tile, tl.trans(x_tile), input_precision=PRECISION)
        asked = (asked * within(row, T, HAS_RESET) * tl.load(row + t)[None, :]).to(B_tile.dtype)
        C_grad = tl.dot(asked, B_tile, C_grad, input_precision=PRECISION)
        B_grad = tl.dot(tl.trans(asked), C_tile, B_grad, input_precision=PRECISION)
        dy_tile = (dy_tile.to(tl.float32) * tl.load(row + 3 * T + t)[:, None]).to(dy_tile.dtype)
        h = state_tile(entering + place * width * states, width, states, P, N).to(dy_tile.dtype)
        C_grad = tl.dot(dy_tile, h, C_grad, input_precision=PRECISION)
        weight = tl.load(row + t) * tl.load(row + 4 * T + t)
        x_tile = (x_tile.to(tl.float32) * weight[:, None]).to(x_tile.dtype)
        g = state_tile(leaving + place * width * states, width, states, P, N).to(x_tile.dtype)
        B_grad = tl.dot(x_tile, g, B_grad, input_precision=PRECISION)
    n = tl.arange(0, N)
    at = b * d_sb + group * states + token[:, None] * d_sl + n[None, :]
    mask = live[:, None] & (n < states)[None, :]
    tl.store(dB + at, B_grad, mask=mask)
    tl.store(dC + at, C_grad, mask=mask)
