"""The forward scan on a GPU: state pass per chunk, carry across chunks, output pass per chunk.

One program is one warp. A lane keeps the whole state of its channel in registers, so that the sum over
states needs no shuffles, and walks the tokens of its chunk in order. What a group of tokens needs is asked for
turns of the loop ahead, by copies that go to shared memory while the warp computes (`num_stages` makes Triton's
pipeliner do that): so no registers hold it meanwhile, and a lane reads B and C, of which each needs all, from
there. A row is loaded where its step begins, lest all rows of a group be in registers. The README derives the
passes.

Steps are counted in scan order; step i is token i, or token L - 1 - i with `REVERSE`. A *wall* before a
step cuts the recurrence there. `coupling` is fp32 (B, L, 2, N): the rows of B and of C side by side.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.launching import Kernel
from genomamba.kernels.selective_scan.triton_lanes import keep_channel, lane_order
from genomamba.kernels.selective_scan.triton_steps import (
    advance,
    cut,
    load_decay,
    load_group,
    load_row,
    load_rows,
    load_state,
    step_size,
    store_row,
    store_state,
    wall_before,
    zeros_like_state,
)
from genomamba.kernels.triton_math import LOG2E, sigmoid


@Kernel
@triton.jit(do_not_specialize=["L", "N", "total"])
def coupling_kernel(
    B,
    C,
    out,
    L,
    N,
    total,
    b_sb,
    b_sl,
    b_sn,
    c_sb,
    c_sl,
    c_sn,
    NP: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Rows of B and C, whatever their strides and dtypes, to `coupling`; padded states are zero.

    With TILE in the backward's lane order, each number twice: `load_lane_rows` says why.
    """
    WIDE: tl.constexpr = 2 * NP if TILE else NP
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, WIDE)
    n = lane_order(k, TILE) if TILE else k
    b, t = row // L, row % L
    write = (row < total)[:, None] & (k >= 0)[None, :]
    read = write & (n < N)[None, :]
    vb = tl.load(B + (b * b_sb + t * b_sl)[:, None] + n[None, :] * b_sn, mask=read, other=0.0)
    vc = tl.load(C + (b * c_sb + t * c_sl)[:, None] + n[None, :] * c_sn, mask=read, other=0.0)
    ptr = out + row[:, None] * (2 * WIDE) + k[None, :]
    tl.store(ptr, vb.to(tl.float32), mask=write)
    tl.store(ptr + WIDE, vc.to(tl.float32), mask=write)


@Kernel
@triton.jit(do_not_specialize=["L", "D", "n_real", "n_chunks"])
def state_kernel(
    u,
    dt,
    A,
    coupling,
    dt_bias,
    walls,
    states,
    sums,
    L,
    D,
    n_real,
    chunk,
    n_chunks,
    u_sb,
    u_sl,
    u_sd,
    dt_sb,
    dt_sl,
    dt_sd,
    a_sd,
    a_sn,
    NP: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    U: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    STAGES: tl.constexpr,
):
    """What a chunk leaves when it begins from zero, (B, chunks, NP, D), and its sum of dt, (B, chunks, D)."""
    if WIDTH:
        D, u_sl, dt_sl = WIDTH, WIDTH, WIDTH
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, 32)
    pid = tl.program_id(0)
    lane = tl.arange(0, 32)
    d = (pid % blocks) * 32 + lane
    c = (pid // blocks) % n_chunks
    b = (pid // (blocks * n_chunks)).to(tl.int64)
    n0 = tl.program_id(1) * N
    d = d.to(tl.int64)
    live = d < D
    decay = load_decay(A, d, live, n0, a_sd, a_sn, n_real, N)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    h = zeros_like_state(lane, N)
    total = tl.zeros((32,), tl.float32)

    first = c.to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + d * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
    row_ptr = coupling + (b * L + token) * (2 * NP) + n0
    for i in tl.range(0, steps, U, num_stages=STAGES):
        raws = load_group(dt_ptr, way * dt_sl, i, steps, live, U, MASK_L, MASKED)
        us = load_group(u_ptr, way * u_sl, i, steps, live, U, MASK_L, MASKED)
        for j in tl.static_range(U):
            row_at = tl.minimum(j, steps - 1 - i) if MASK_L else j
            row_b, _ = load_rows(row_ptr + row_at * way * (2 * NP), N, NP)
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j].to(tl.float32), bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + i + j, L), N)
            h = advance(h, delta, delta * us[j].to(tl.float32), decay, row_b, N)
            total = total + delta
        u_ptr += U * way * u_sl
        dt_ptr += U * way * dt_sl
        row_ptr += U * way * (2 * NP)
    store_state(states + ((b * n_chunks + c) * NP + n0) * D + d, h, D, live, N)
    tl.store(sums + (b * n_chunks + c) * D + d, total, mask=live)


@Kernel
@triton.jit(do_not_specialize=["D", "n_real", "n_chunks"])
def carry_kernel(
    states,
    sums,
    A,
    chunk_walls,
    initial,
    D,
    n_real,
    n_chunks,
    a_sd,
    a_sn,
    i_sb,
    i_sd,
    i_sn,
    NP: tl.constexpr,
    BD: tl.constexpr,
    U: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """In place: what each chunk leaves by itself becomes the state that enters it."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    n = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    live = d < D
    d = d.to(tl.int64)
    real = live & (n < n_real)
    decay = tl.load(A + d * a_sd + n * a_sn, mask=real, other=0.0).to(tl.float32) * LOG2E
    if HAS_INITIAL:
        h = tl.load(initial + b * i_sb + d * i_sd + n * i_sn, mask=real, other=0.0).to(tl.float32)
    else:
        h = tl.zeros((BD,), tl.float32)
    for c in tl.range(0, n_chunks, U, num_stages=STAGES):
        own = ()
        total = ()
        for j in tl.static_range(U):
            at = b * n_chunks + c + j
            here = live & (c + j < n_chunks)
            own = own + (tl.load(states + (at * NP + n) * D + d, mask=here, other=0.0),)
            total = total + (tl.load(sums + at * D + d, mask=here, other=0.0),)
        for j in tl.static_range(U):
            at = b * n_chunks + c + j
            here = live & (c + j < n_chunks)
            tl.store(states + (at * NP + n) * D + d, h, mask=here)
            passed = tl.exp2(decay * total[j]) * h
            if HAS_WALLS:
                passed = tl.where(tl.load(chunk_walls + at, mask=c + j < n_chunks, other=0) != 0, 0.0, passed)
            h = passed + own[j]


@Kernel
@triton.jit(do_not_specialize=["L", "D", "n_real", "n_chunks", "span", "n_spans"])
def output_kernel(
    u,
    dt,
    A,
    coupling,
    D_skip,
    z,
    dt_bias,
    walls,
    states,
    kept,
    sum_y,
    y,
    final,
    L,
    D,
    n_real,
    chunk,
    n_chunks,
    span,
    n_spans,
    n0,
    u_sb,
    u_sl,
    u_sd,
    dt_sb,
    dt_sl,
    dt_sd,
    a_sd,
    a_sn,
    z_sb,
    z_sl,
    z_sd,
    NP: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    Z_ROW: tl.constexpr,
    U: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    KEEP: tl.constexpr,
    FINE: tl.constexpr,
    FROM_ZERO: tl.constexpr,
    ADD: tl.constexpr,
    STAGES: tl.constexpr,
):
    """y of a span of chunks from the state that enters its first, and the final state.

    With KEEP the states that enter the other chunks are written beside the first's. With FINE, of one
    span, the state before every U-th step goes to `kept` as triton_rebuild would write it. FROM_ZERO, of one span
    too, the state that enters is zero and has yet to be written.

    With more states than one tile holds, one launch per tile adds to `sum_y` (fp32), and the last gates. With ADD
    the last also adds what is in `y` already.
    """
    if WIDTH:
        D, u_sl, dt_sl, z_sl = WIDTH, WIDTH, WIDTH, WIDTH * Z_ROW
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, 32)
    pid = tl.program_id(0)
    lane = tl.arange(0, 32)
    d = (pid % blocks) * 32 + lane
    c = (pid // blocks) % n_spans
    b = (pid // (blocks * n_spans)).to(tl.int64)
    d = d.to(tl.int64)
    live = d < D
    entered = states + ((b * n_chunks + c * (span // chunk)) * NP + n0) * D + d
    decay = load_decay(A, d, live, n0, a_sd, a_sn, n_real, N)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    skip = tl.load(D_skip + d, mask=live, other=0.0).to(tl.float32) if HAS_SKIP else 0.0
    if FROM_ZERO:
        h = zeros_like_state(lane, N)
        if not FINE:
            store_state(entered, h, D, live, N)
    else:
        h = load_state(entered, D, live, N, MASK_D)

    first = c.to(tl.int64) * span
    steps = tl.minimum(span, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + d * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
    z_ptr = z + b * z_sb + token * z_sl + d * z_sd
    row_ptr = coupling + (b * L + token) * (2 * NP) + n0
    out_ptr = (y if LAST else sum_y) + (b * L + token) * D + d
    sum_ptr = sum_y + (b * L + token) * D + d
    keep_at = chunk
    kept_ptr = kept + ((b * (span // U) * (NP // N) + n0 // N) * blocks + pid % blocks) * (N * 32)
    for i in tl.range(0, steps, U, num_stages=STAGES):
        if FINE:
            keep_channel(kept_ptr, h, lane, N)
            kept_ptr += tl.cast(blocks, tl.int64) * (NP * 32)
        if KEEP:  # noqa: SIM102 (known when compiled; the other when run)
            if i == keep_at:
                keep_at += chunk
                entered += tl.cast(D, tl.int64) * NP
                store_state(entered, h, D, live, N)
        raws = load_group(dt_ptr, way * dt_sl, i, steps, live, U, MASK_L, MASKED)
        us = load_group(u_ptr, way * u_sl, i, steps, live, U, MASK_L, MASKED)
        zs = us
        if HAS_GATE and LAST:
            zs = load_group(z_ptr, way * z_sl, i, steps, live, U, MASK_L, MASKED)
        sums = us
        if not FIRST:
            sums = load_group(sum_ptr, way * D, i, steps, live, U, MASK_L, MASKED)
        out = ()
        for j in tl.static_range(U):
            row_at = tl.minimum(j, steps - 1 - i) if MASK_L else j
            row_b, row_c = load_rows(row_ptr + row_at * way * (2 * NP), N, NP)
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j].to(tl.float32), bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            x_in = us[j].to(tl.float32)
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + i + j, L), N)
            h = advance(h, delta, delta * x_in, decay, row_b, N)
            if not FIRST:
                total = sums[j]
            elif HAS_SKIP:
                total = skip * x_in
            else:
                total = tl.zeros((32,), tl.float32)
            for n in tl.static_range(N):
                total = row_c[n] * h[n] + total
            if HAS_GATE and LAST:
                gate_in = zs[j].to(tl.float32)
                total = total * (gate_in * sigmoid(gate_in))
            if ADD and LAST:
                total += load_row(out_ptr + j * way * D, valid, MASKED)
            out = out + (total,)
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            store_row(out_ptr + j * way * D, out[j], valid, MASKED)
        u_ptr += U * way * u_sl
        dt_ptr += U * way * dt_sl
        z_ptr += U * way * z_sl
        row_ptr += U * way * (2 * NP)
        out_ptr += U * way * D
        sum_ptr += U * way * D
    if c == n_spans - 1:
        at = final + (b * D + d) * n_real + n0
        for n in tl.static_range(N):
            tl.store(at + n, h[n], mask=live & (n0 + n < n_real))
