"""Before the gradients of a slab: its states once more, and what its outputs ask of the states that enter chunks.

triton_gradient.py has the equations, triton_lanes.py the layout.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.launching import Kernel
from genomamba.kernels.selective_scan.triton_lanes import (
    keep_state,
    kept_state,
    lane_state,
    load_lane_rows,
    partners,
)
from genomamba.kernels.selective_scan.triton_steps import (
    cut,
    load_group,
    load_row,
    step_size,
    wall_before,
    zeros_like_state,
)
from genomamba.kernels.triton_math import LOG2E, sigmoid


@Kernel
@triton.jit(do_not_specialize=["L", "D", "n_chunks", "c0", "slab_chunks", "most_chunks", "row_first", "row_count"])
def rebuild_kernel(
    u,
    dt,
    scaled_A,
    coupling,
    z,
    dt_bias,
    walls,
    dy,
    states,
    kept,
    asked,
    sums,
    d_skip,
    L,
    D,
    n_chunks,
    chunk,
    c0,
    slab_chunks,
    most_chunks,
    row_first,
    row_count,
    u_sb,
    u_sl,
    u_sd,
    dt_sb,
    dt_sl,
    dt_sd,
    z_sb,
    z_sl,
    z_sd,
    dy_sb,
    dy_sl,
    dy_sd,
    NP: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    WIDTH: tl.constexpr,
    Z_ROW: tl.constexpr,
    K: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    STAGES: tl.constexpr,
):
    """`kept`: the state before every K-th step, (B, slab_chunks, chunk / K, NP / N, blocks, N, BD) in number.

    `asked`: what the chunk's outputs ask of the state that enters it, (B, slab_chunks, NP, blocks, BD).
    `sums` of dt, (B, slab_chunks, D); `d_skip` grows from slab to slab, (B, most_chunks, D).
    """
    if WIDTH:
        D, u_sl, dt_sl, dy_sl, z_sl = WIDTH, WIDTH, WIDTH, WIDTH, WIDTH * Z_ROW
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, BD)
    pid = tl.program_id(0)
    lane = tl.arange(0, BD)
    d = (pid % blocks) * BD + lane
    s = (pid // blocks) % slab_chunks
    b = (pid // (blocks * slab_chunks)).to(tl.int64)
    c = c0 + s
    n0 = tl.program_id(1) * N
    live = d < D
    d = d.to(tl.int64)
    decay = kept_state(scaled_A + (tl.program_id(1) * blocks + pid % blocks) * (N * BD), lane, N)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0

    first = c.to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + d * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
    z_ptr = z + b * z_sb + token * z_sl + d * z_sd
    dy_ptr = dy + b * dy_sb + token * dy_sl + d * dy_sd
    rows = coupling + (b * row_count + token - row_first) * (4 * NP) + 2 * n0
    kept_ptr = kept + (((b * slab_chunks + s) * (chunk // K) * (NP // N) + n0 // N) * blocks + pid % blocks) * (N * BD)
    h = ()
    for side in tl.static_range(2):
        channel = (pid % blocks) * BD + (lane ^ (16 * side))
        for r in tl.static_range(N // 2):
            place = (b * n_chunks + c) * NP + n0 + lane_state(lane, r, N)
            h = h + (load_row(states + place * D + channel, channel < D, True),)
    product = ()
    for _ in tl.static_range(N):
        product = product + (tl.full((BD,), 1.0, tl.float32),)
    ask = zeros_like_state(d, N)
    total = tl.zeros((BD,), tl.float32)
    grad_skip = tl.zeros((BD,), tl.float32)
    closed = 0
    for i in tl.range(0, steps, K, num_stages=STAGES):
        keep_state(kept_ptr, h, lane, N)
        kept_ptr += tl.cast(blocks, tl.int64) * (NP * BD)
        raws = load_group(dt_ptr, way * dt_sl, i, steps, live, K, MASK_L, MASKED)
        us = load_group(u_ptr, way * u_sl, i, steps, live, K, MASK_L, MASKED)
        dys = load_group(dy_ptr, way * dy_sl, i, steps, live, K, MASK_L, MASKED)
        zs = us
        if HAS_GATE:
            zs = load_group(z_ptr, way * z_sl, i, steps, live, K, MASK_L, MASKED)
        for j in tl.static_range(K):
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j].to(tl.float32), bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            row_at = tl.minimum(j, steps - 1 - i) if MASK_L else j
            row_b, row_c = load_lane_rows(rows + row_at * way * (4 * NP), N, NP)
            grad = dys[j].to(tl.float32)
            if HAS_GATE:
                gate_in = zs[j].to(tl.float32)
                grad = grad * (gate_in * sigmoid(gate_in))
            x_in = us[j].to(tl.float32)
            if HAS_WALLS:
                wall = wall_before(walls, b, first + i + j, L).to(tl.int32)
                h = cut(h, wall, N)
                closed = closed | wall
            x = delta * x_in
            sides = ((delta, x, grad), (partners(delta, lane), partners(x, lane), partners(grad, lane)))
            new_h = ()
            new_product = ()
            new_ask = ()
            for n in tl.static_range(N):
                delta_n, x_n, grad_n = sides[n // (N // 2)]
                a = tl.exp2(delta_n * decay[n])
                new_h = new_h + (a * h[n] + x_n * row_b[n % (N // 2)],)
                p = product[n] * a
                new_product = new_product + (p,)
                asks = p * (grad_n * row_c[n % (N // 2)]) + ask[n]
                if HAS_WALLS:
                    asks = tl.where(closed != 0, ask[n], asks)
                new_ask = new_ask + (asks,)
            h = new_h
            product = new_product
            ask = new_ask
            total += delta
            grad_skip += x_in * grad
        u_ptr += K * way * u_sl
        dt_ptr += K * way * dt_sl
        z_ptr += K * way * z_sl
        dy_ptr += K * way * dy_sl
        rows += K * way * (4 * NP)
    place = ((b * slab_chunks + s) * NP + n0) * (blocks * BD)
    for n in tl.static_range(N):
        tl.store(asked + place + (n * blocks + pid % blocks) * BD + lane, ask[n])
    if n0 == 0:
        tl.store(sums + (b * slab_chunks + s) * D + d, total, mask=live)
        if HAS_SKIP:
            grown = (b * most_chunks + s) * D + d
            tl.store(d_skip + grown, grad_skip + tl.load(d_skip + grown, mask=live, other=0.0), mask=live)


@Kernel
@triton.jit(do_not_specialize=["D", "n_real"])
def decay_kernel(A, out, D, n_real, a_sd, a_sn, N: tl.constexpr):
    """A log2(e) in lane order as `kept_state` reads it, (NP / N, blocks, N, 32) in number; zero where padded."""
    lane = tl.arange(0, 32)
    block, tile = tl.program_id(0), tl.program_id(1)
    place = out + (tile * tl.num_programs(0) + block) * (N * 32)
    for r in tl.static_range(N):
        d = (block * 32 + (lane ^ (r // (N // 2) * 16))).to(tl.int64)
        n = tile * N + lane_state(lane, r % (N // 2), N)
        value = tl.load(A + d * a_sd + n * a_sn, mask=(d < D) & (n < n_real), other=0.0).to(tl.float32)
        tl.store(place + r // 4 * 128 + lane * 4 + r % 4, value * LOG2E)


@Kernel
@triton.jit(do_not_specialize=["D", "n_real", "n_chunks", "c0", "slab_chunks"])
def adjoint_carry_kernel(
    asked,
    sums,
    A,
    chunk_walls,
    carry,
    D,
    n_real,
    n_chunks,
    c0,
    slab_chunks,
    a_sd,
    a_sn,
    NP: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    U: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """In place: what each chunk asks becomes the gradient of the state that leaves it; `carry` moves on."""
    block = tl.program_id(0)
    lane = tl.arange(0, BD)
    n = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    width = tl.num_programs(0) * BD
    d = (block * BD + (lane ^ (n % N // (N // 2) * 16))).to(tl.int64)
    state = n // N * N + lane_state(lane, n % (N // 2), N)
    at_lane = n * width + block * BD + lane
    live = d < D
    decay = tl.load(A + d * a_sd + state * a_sn, mask=live & (state < n_real), other=0.0).to(tl.float32) * LOG2E
    g = tl.load(carry + b * NP * width + at_lane)
    for c in tl.range(0, slab_chunks, U, num_stages=STAGES):
        own = ()
        total = ()
        for j in tl.static_range(U):
            at = b * slab_chunks + slab_chunks - 1 - c - j
            here = (c + j < slab_chunks) & (lane >= 0)
            own = own + (tl.load(asked + at * NP * width + at_lane, mask=here, other=0.0),)
            total = total + (tl.load(sums + at * D + d, mask=here & live, other=0.0),)
        for j in tl.static_range(U):
            at = b * slab_chunks + slab_chunks - 1 - c - j
            tl.store(asked + at * NP * width + at_lane, g, mask=(c + j < slab_chunks) & (lane >= 0))
            passed = tl.exp2(decay * total[j]) * g
            if HAS_WALLS:
                wall_at = b * n_chunks + c0 + slab_chunks - 1 - c - j
                passed = tl.where(tl.load(chunk_walls + wall_at, mask=c + j < slab_chunks, other=0) != 0, 0.0, passed)
            g = passed + own[j]
    tl.store(carry + b * NP * width + at_lane, g)
