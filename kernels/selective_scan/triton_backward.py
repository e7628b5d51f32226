"""The backward scan on a GPU, slab by slab from the last step to the first; the README derives it.

Per slab: `rebuild_kernel` walks each chunk in scan order from the state that entered it, keeps the state at
every K-th step, and sums what the chunk's outputs ask of its entering state. `adjoint_carry_kernel` joins
those across chunks into the gradient of the state that leaves each one. `gradient_kernel` walks each chunk
backwards, K steps at a time, from the kept states. With g_t the gradient of h_t, and a_t = exp(dt_t A),

    g_t = C_t dy_t + a_{t+1} g_{t+1}              dB_t = Σ_d g_t dt_t u_t      dC_t = Σ_d dy_t h_t
    d(dt_t) = Σ_n g_t (A a_t h_{t-1} + B_t u_t)   du_t = dt_t Σ_n g_t B_t      dA = Σ_t g_t dt_t a_t h_{t-1}

where dy is taken before the gate. a_t h_{t-1} is formed as such, never as h_t - dt_t B_t u_t, which cancels.

The sums over channels run across lanes. So that they need no selections, register r of lane l holds state
r ^ (l & 14): the two lanes of an exchange then hold the same state in the registers that they exchange. N is
a power of two here, and `kept`, `asked`, `carry` and `dA` are in this *lane order*.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.selective_scan.triton_forward import (
    LOG2E,
    advance,
    cut,
    load_row,
    load_state,
    sigmoid,
    step_size,
    store_state,
    wall_before,
    zeros_like_state,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def lane_order(lane, n: tl.constexpr, N: tl.constexpr):
    """The state in register n of lane lane, within a tile of N."""
    return n ^ (lane & (N - 1) & 14)


@triton.jit
def coupling_pointers(row, lane, N: tl.constexpr):
    """Per lane, pointers to the pairs of a row in lane order."""
    pairs = row.to(tl.pointer_type(tl.int64))
    out = ()
    for i in tl.static_range(N // 2):
        out = out + (pairs + (i ^ ((lane & (N - 1) & 14) >> 1)),)
    return out


@triton.jit
def load_pairs(pairs, offset, N: tl.constexpr):
    """A row in lane order; `offset` counts pairs."""
    out = ()
    for i in tl.static_range(N // 2):
        v = tl.load(pairs[i] + offset)
        lo = v.to(tl.int32).to(tl.float32, bitcast=True)
        hi = (v >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        out = out + (lo, hi)
    return out


@triton.jit
def load_decay_lanes(A, d, lane, mask, n0, a_sd, a_sn, n_real, N: tl.constexpr):
    out = ()
    for r in tl.static_range(N):
        n = n0 + lane_order(lane, r, N)
        out = out + (tl.load(A + d * a_sd + n * a_sn, mask=mask & (n < n_real), other=0.0).to(tl.float32) * LOG2E,)
    return out


@triton.jit
def exchange(values, lane, BIT: tl.constexpr):
    """In lane order: add the partner's register r + BIT to register r."""
    out = ()
    for r in tl.static_range(len(values) // 2):
        out = out + (values[r] + tl.gather(values[r + BIT], lane ^ BIT, 0),)
    return out


@triton.jit
def merge(even, odd, lane, BIT: tl.constexpr):
    """Lanes with BIT clear get the sum of both lanes' `even`, the others of their `odd`."""
    upper = (lane & BIT) != 0
    return tl.where(upper, odd, even) + tl.gather(tl.where(upper, even, odd), lane ^ BIT, 0)


@triton.jit
def sum_over_lanes(values, lane, N: tl.constexpr):
    """Sums over 16 lanes of N vectors in lane order: that of state n is in the lanes with lane % N = n."""
    if N > 8:
        values = exchange(values, lane, 8)
    if N > 4:
        values = exchange(values, lane, 4)
    if N > 2:
        values = exchange(values, lane, 2)
    total = merge(values[0], values[1], lane, 1)
    if N <= 2:
        total += tl.gather(total, lane ^ 2, 0)
    if N <= 4:
        total += tl.gather(total, lane ^ 4, 0)
    if N <= 8:
        total += tl.gather(total, lane ^ 8, 0)
    return total


@triton.jit
def rebuild_kernel(
    u,
    dt,
    A,
    coupling,
    z,
    dt_bias,
    walls,
    dy,
    states,
    kept,
    asked,
    sums,
    L,
    D,
    n_real,
    chunk,
    n_chunks,
    c0,
    slab_chunks,
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
    dy_sb,
    dy_sl,
    dy_sd,
    NP: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    K: tl.constexpr,
    U: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
):
    """`kept`: the state before every K-th step, (B, slab_chunks, chunk / K, NP, D).

    `asked`: what the chunk's outputs ask of the state that enters it, (B, slab_chunks, NP, D).
    """
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
    decay = load_decay_lanes(A, d, lane, live, n0, a_sd, a_sn, n_real, N)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0

    first = c.to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + d * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
    z_ptr = z + b * z_sb + token * z_sl + d * z_sd
    dy_ptr = dy + b * dy_sb + token * dy_sl + d * dy_sd
    pairs = coupling_pointers(coupling + (b * L + token) * (2 * NP) + n0, lane, N)
    kept_ptr = kept + ((b * slab_chunks + s) * (chunk // K) * NP + n0) * D + d
    h = ()
    for r in tl.static_range(N):
        place = (b * n_chunks + c) * NP + n0 + lane_order(lane, r, N)
        h = h + (load_row(states + place * D + d, live, True),)
    product = ()
    for _ in tl.static_range(N):
        product = product + (tl.full((BD,), 1.0, tl.float32),)
    ask = zeros_like_state(d, N)
    total = tl.zeros((BD,), tl.float32)
    closed = 0
    for i in range(0, steps, U):
        if i % K == 0:
            for n in tl.static_range(N):
                tl.store(kept_ptr + n * D, h[n], mask=live)
            kept_ptr += NP * D
        raws = ()
        us = ()
        zs = ()
        dys = ()
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            raws = raws + (load_row(dt_ptr + j * way * dt_sl, valid, MASKED),)
            us = us + (load_row(u_ptr + j * way * u_sl, valid, MASKED),)
            dys = dys + (load_row(dy_ptr + j * way * dy_sl, valid, MASKED),)
            if HAS_GATE:
                zs = zs + (load_row(z_ptr + j * way * z_sl, valid, MASKED),)
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j], bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            at = (i + tl.minimum(j, steps - 1 - i) if MASK_L else i + j) * way * NP
            row_b = load_pairs(pairs, at, N)
            row_c = load_pairs(pairs, at + NP // 2, N)
            grad = dys[j] * (zs[j] * sigmoid(zs[j])) if HAS_GATE else dys[j]
            if HAS_WALLS:
                wall = wall_before(walls, b, first + i + j, L).to(tl.int32)
                h = cut(h, wall, N)
                closed = closed | wall
            x = delta * us[j]
            new_h = ()
            new_product = ()
            new_ask = ()
            for n in tl.static_range(N):
                a = tl.exp2(delta * decay[n])
                new_h = new_h + (a * h[n] + x * row_b[n],)
                p = product[n] * a
                new_product = new_product + (p,)
                more = p * (grad * row_c[n]) + ask[n]
                if HAS_WALLS:
                    more = tl.where(closed != 0, ask[n], more)
                new_ask = new_ask + (more,)
            h = new_h
            product = new_product
            ask = new_ask
            total += delta
        u_ptr += U * way * u_sl
        dt_ptr += U * way * dt_sl
        z_ptr += U * way * z_sl
        dy_ptr += U * way * dy_sl
    store_state(asked + ((b * slab_chunks + s) * NP + n0) * D + d, ask, D, live, N)
    tl.store(sums + (b * slab_chunks + s) * D + d, total, mask=live)


@triton.jit
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
):
    """In place: what each chunk asks becomes the gradient of the state that leaves it; `carry` (B, NP, D) moves on."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    n = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    live = d < D
    state = n ^ (d & (N - 1) & 14)
    d = d.to(tl.int64)
    real = live & (state < n_real)
    decay = tl.load(A + d * a_sd + state * a_sn, mask=real, other=0.0).to(tl.float32) * LOG2E
    g = tl.load(carry + (b * NP + n) * D + d, mask=live, other=0.0)
    for c in range(0, slab_chunks, U):
        own = ()
        total = ()
        for j in tl.static_range(U):
            at = b * slab_chunks + slab_chunks - 1 - c - j
            here = live & (c + j < slab_chunks)
            own = own + (tl.load(asked + (at * NP + n) * D + d, mask=here, other=0.0),)
            total = total + (tl.load(sums + at * D + d, mask=here, other=0.0),)
        for j in tl.static_range(U):
            at = b * slab_chunks + slab_chunks - 1 - c - j
            here = live & (c + j < slab_chunks)
            tl.store(asked + (at * NP + n) * D + d, g, mask=here)
            passed = tl.exp2(decay * total[j]) * g
            if HAS_WALLS:
                wall_at = b * n_chunks + c0 + slab_chunks - 1 - c - j
                passed = tl.where(tl.load(chunk_walls + wall_at, mask=c + j < slab_chunks, other=0) != 0, 0.0, passed)
            g = passed + own[j]
    tl.store(carry + (b * NP + n) * D + d, g, mask=live)


@triton.jit
def gradient_kernel(
    u,
    dt,
    A,
    coupling,
    D_skip,
    z,
    dt_bias,
    walls,
    dy,
    kept,
    asked,
    du,
    ddt,
    dz,
    d_coupling,
    dA,
    d_skip,
    d_bias,
    sum_y,
    sum_x,
    sum_a,
    L,
    D,
    n_real,
    chunk,
    c0,
    slab_chunks,
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
    dy_sb,
    dy_sl,
    dy_sd,
    NP: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    K: tl.constexpr,
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
):
    """Every gradient of a chunk. Per token, partial over BD channels: `d_coupling` (blocks, B, slab, 2, N).

    Per chunk: `dA` (B, slab_chunks, NP, D), `d_skip` and `d_bias` (B, slab_chunks, D). With more states than
    one tile holds, one launch per tile adds the three sums over states to `sum_y`, `sum_x` and `sum_a`
    (fp32, (B, slab, D)), and the last one finishes du, ddt and dz from them.
    """
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, BD)
    pid = tl.program_id(0)
    block = pid % blocks
    lane = tl.arange(0, BD)
    d = block * BD + lane
    s = (pid // blocks) % slab_chunks
    b = (pid // (blocks * slab_chunks)).to(tl.int64)
    batch = tl.num_programs(0) // (blocks * slab_chunks)
    live = d < D
    d = d.to(tl.int64)
    decay = load_decay_lanes(A, d, lane, live, n0, a_sd, a_sn, n_real, N)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    skip = tl.load(D_skip + d, mask=live, other=0.0).to(tl.float32) if HAS_SKIP else 0.0

    slab = slab_chunks.to(tl.int64) * chunk
    first = (c0 + s).to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    groups = (steps + K - 1) // K
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    g = load_state(asked + ((b * slab_chunks + s) * NP + n0) * D + d, D, live, N, MASK_D)
    grad_A = zeros_like_state(d, N)
    grad_skip = tl.zeros((BD,), tl.float32)
    grad_bias = tl.zeros((BD,), tl.float32)
    for r in range(0, groups):
        group = groups - 1 - r
        k0 = group * K
        h = load_state(kept + (((b * slab_chunks + s) * (chunk // K) + group) * NP + n0) * D + d, D, live, N, MASK_D)
        entry = (h,)
        token = L - 1 - (first + k0) if REVERSE else first + k0
        u_ptr = u + b * u_sb + token * u_sl + d * u_sd
        dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
        pairs = coupling_pointers(coupling + (b * L + token) * (2 * NP) + n0, lane, N)
        for j in tl.static_range(K - U):
            valid = live & (k0 + j < steps) if MASK_L else live
            delta = step_size(
                load_row(dt_ptr + j * way * dt_sl, valid, MASKED), bias, valid, HAS_BIAS, SOFTPLUS, MASKED
            )
            x = delta * load_row(u_ptr + j * way * u_sl, valid, MASKED)
            at = (tl.minimum(j, steps - 1 - k0) if MASK_L else j) * way * NP
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + k0 + j, L), N)
            h = advance(h, delta, x, decay, load_pairs(pairs, at, N), N)
            if j % U == U - 1:
                entry = entry + (h,)
        for p in tl.static_range(K // U - 1, -1, -1):
            i0 = k0 + p * U
            h = entry[p]
            z_ptr = z + b * z_sb + (token + p * U * way) * z_sl + d * z_sd
            dy_ptr = dy + b * dy_sb + (token + p * U * way) * dy_sl + d * dy_sd
            deltas = ()
            slopes = ()
            us = ()
            grads = ()
            dzs = ()
            decays = ()
            olds = ()
            dcs = ()
            dskips = ()
            for j in tl.static_range(U):
                valid = live & (i0 + j < steps) if MASK_L else live
                raw = load_row(dt_ptr + (p * U + j) * way * dt_sl, valid, MASKED)
                x_in = load_row(u_ptr + (p * U + j) * way * u_sl, valid, MASKED)
                up = load_row(dy_ptr + j * way * dy_sl, valid, MASKED)
                delta = step_size(raw, bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
                at = (tl.minimum(p * U + j, steps - 1 - k0) if MASK_L else p * U + j) * way * NP
                row_b = load_pairs(pairs, at, N)
                row_c = load_pairs(pairs, at + NP // 2, N)
                if HAS_GATE:
                    gate_in = load_row(z_ptr + j * way * z_sl, valid, MASKED)
                    gate = sigmoid(gate_in)
                    grad = up * (gate_in * gate)
                    dz_scale = up * (gate * (1.0 + gate_in * (1.0 - gate)))
                else:
                    grad = up
                if HAS_WALLS:
                    h = cut(h, wall_before(walls, b, first + i0 + j, L), N)
                x = delta * x_in
                y = skip * x_in if HAS_SKIP else tl.zeros((BD,), tl.float32)
                new_h = ()
                dc = ()
                a_j = ()
                old_j = ()
                for n in tl.static_range(N):
                    a = tl.exp2(delta * decay[n])
                    old = a * h[n]
                    now = x * row_b[n] + old
                    y = row_c[n] * now + y
                    dc = dc + (grad * now,)
                    a_j = a_j + (a,)
                    old_j = old_j + (old,)
                    new_h = new_h + (now,)
                h = new_h
                decays = decays + (a_j,)
                olds = olds + (old_j,)
                dcs = dcs + (sum_over_lanes(dc, lane, N),)
                deltas = deltas + (delta,)
                us = us + (x_in,)
                grads = grads + (grad,)
                if SOFTPLUS and LAST:
                    slopes = slopes + (sigmoid(raw + bias),)
                if HAS_GATE:
                    if FIRST and LAST:
                        dzs = dzs + (dz_scale * y,)
                    else:
                        dzs = dzs + (dz_scale,)
                        dskips = dskips + (y,)
            dus = ()
            ddts = ()
            dbs = ()
            for j in tl.static_range(U - 1, -1, -1):
                at = (tl.minimum(p * U + j, steps - 1 - k0) if MASK_L else p * U + j) * way * NP
                row_b = load_pairs(pairs, at, N)
                row_c = load_pairs(pairs, at + NP // 2, N)
                delta = deltas[j]
                x = delta * us[j]
                real = live & (i0 + j < steps)
                from_x = tl.zeros((BD,), tl.float32)
                from_a = tl.zeros((BD,), tl.float32)
                new_g = ()
                new_A = ()
                db = ()
                for n in tl.static_range(N):
                    full = grads[j] * row_c[n] + g[n]
                    from_x = full * row_b[n] + from_x
                    through = full * olds[j][n]
                    if MASK_L:
                        through = tl.where(real, through, 0.0)
                    from_a = through * decay[n] + from_a
                    new_A = new_A + (through * delta + grad_A[n],)
                    db = db + (full * x,)
                    new_g = new_g + (full * decays[j][n],)
                g = new_g
                grad_A = new_A
                if HAS_WALLS:
                    g = cut(g, wall_before(walls, b, first + i0 + j, L), N)
                dbs = dbs + (sum_over_lanes(db, lane, N),)
                dus = dus + (from_x,)
                ddts = ddts + (from_a,)
            out_token = token + p * U * way
            slab_row = b * slab + (s * chunk + i0)
            for j in tl.static_range(U):
                valid = live & (i0 + j < steps) if MASK_L else live
                from_x = dus[U - 1 - j]
                from_a = ddts[U - 1 - j] * LN2
                both = merge(dbs[U - 1 - j], dcs[j], lane, 16)
                n = lane % N
                part = d_coupling + ((block * batch * slab + slab_row + j) * 2 + lane // 16) * N + n
                tl.store(part, both, mask=(lane % 16 < N) & (i0 + j < steps))
                sums = (slab_row + j) * D + d
                if not FIRST:
                    from_x += tl.load(sum_x + sums, mask=valid, other=0.0)
                    from_a += tl.load(sum_a + sums, mask=valid, other=0.0)
                if LAST:
                    du_t = deltas[j] * from_x
                    if HAS_SKIP:
                        du_t += skip * grads[j]
                        grad_skip += us[j] * grads[j]
                    ddt_t = us[j] * from_x + from_a
                    if SOFTPLUS:
                        ddt_t = ddt_t * slopes[j]
                    if MASKED:
                        ddt_t = tl.where(valid, ddt_t, 0.0)
                    grad_bias += ddt_t
                    at_out = (b * L + out_token + j * way) * D + d
                    tl.store(du + at_out, du_t, mask=valid)
                    tl.store(ddt + at_out, ddt_t, mask=valid)
                    if HAS_GATE:
                        dz_t = dzs[j]
                        if not FIRST:
                            y = dskips[j] + tl.load(sum_y + sums, mask=valid, other=0.0)
                            dz_t = dz_t * y
                        tl.store(dz + at_out, dz_t, mask=valid)
                else:
                    tl.store(sum_x + sums, from_x, mask=valid)
                    tl.store(sum_a + sums, from_a, mask=valid)
                    if HAS_GATE:
                        y = dskips[j]
                        if not FIRST:
                            y += tl.load(sum_y + sums, mask=valid, other=0.0)
                        tl.store(sum_y + sums, y, mask=valid)
    place = b * slab_chunks + s
    store_state(dA + (place * NP + n0) * D + d, grad_A, D, live, N)
    if LAST:
        tl.store(d_bias + place * D + d, grad_bias, mask=live)
        if HAS_SKIP:
            tl.store(d_skip + place * D + d, grad_skip, mask=live)


@triton.jit
def coupling_sum_kernel(
    parts,
    dB,
    dC,
    L,
    n_real,
    rows,
    slab,
    first,
    blocks,
    n0,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Sum `parts` (blocks, B, slab, 2, N) over blocks, in order, into dB and dC (B, L, n_real)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = tl.arange(0, N)
    b, step = row // slab, first + row % slab
    live = (row < rows) & (step < L)
    ptr = parts + row[:, None] * (2 * N) + n[None, :]
    db = tl.zeros((ROWS, N), tl.float32)
    dc = tl.zeros((ROWS, N), tl.float32)
    for _ in range(0, blocks):
        db += tl.load(ptr, mask=live[:, None], other=0.0)
        dc += tl.load(ptr + N, mask=live[:, None], other=0.0)
        ptr += rows.to(tl.int64) * (2 * N)
    token = L - 1 - step if REVERSE else step
    out = (b * L + token)[:, None] * n_real + n0 + n[None, :]
    write = live[:, None] & (n0 + n < n_real)[None, :]
    tl.store(dB + out, db, mask=write)
    tl.store(dC + out, dc, mask=write)
