"""The backward scan on a GPU, slab by slab from the last step to the first; the README derives it.

Per slab: `rebuild_kernel` walks each chunk in scan order from the state that entered it, keeps the state at
every K-th step, and sums what the chunk's outputs ask of its entering state. `adjoint_carry_kernel` joins
those across chunks into the gradient of the state that leaves each one. `gradient_kernel` walks each chunk
backwards, K steps at a time, from the kept states. With g_t the gradient of h_t, and a_t = exp(dt_t A),

    g_t = C_t dy_t + a_{t+1} g_{t+1}              dB_t = Σ_d g_t dt_t u_t      dC_t = Σ_d dy_t h_t
    d(dt_t) = Σ_n g_t (A a_t h_{t-1} + B_t u_t)   du_t = dt_t Σ_n g_t B_t      dA = Σ_t g_t dt_t a_t h_{t-1}

where dy is taken before the gate. a_t h_{t-1} is formed as such, never as h_t - dt_t B_t u_t, which cancels.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.launching import Kernel
from genomamba.kernels.selective_scan.triton_lanes import (
    kept_state,
    load_lane_rows,
    partners,
    sum_over_lanes,
)
from genomamba.kernels.selective_scan.triton_steps import (
    cut,
    load_group,
    load_row,
    load_state,
    step_size,
    store_row,
    wall_before,
    zeros_like_state,
)
from genomamba.kernels.triton_math import LOG2E, sigmoid

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus_slope(y):
    """Softplus' derivative from its value, 1 - exp(-y); by its series where that would cancel."""
    p = -1.0 / 720.0
    p = p * y + 1.0 / 120.0
    p = p * y - 1.0 / 24.0
    p = p * y + 1.0 / 6.0
    p = p * y - 0.5
    p = p * y + 1.0
    return tl.where(y < 0.25, y * p, 1.0 - tl.exp2(-y * LOG2E))


@Kernel
@triton.jit(do_not_specialize=["L", "D", "c0", "slab_chunks", "most_chunks", "row_first", "row_count"])
def gradient_kernel(
    u,
    dt,
    scaled_A,
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
    dz_out,
    y_out,
    d_coupling,
    dA,
    d_bias,
    d_skip,
    sum_y,
    sum_x,
    sum_a,
    L,
    D,
    n0,
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
    HAS_Y: tl.constexpr,
    DZ_ROW: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    STAGES: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    WHOLE: tl.constexpr,
    ADD: tl.constexpr,
):
    """Every gradient of a chunk. Per token, partial over BD channels: `d_coupling` (blocks, B, slab, 2, N).

    Grown from slab to slab: `dA` (B, most_chunks, NP, blocks, BD), `d_bias` (B, most_chunks, D). With more states than
    one tile holds, one launch per tile adds the three sums over states to `sum_y`, `sum_x` and `sum_a`
    (fp32, (B, slab, D)), and the last one finishes du, ddt and dz from them.

    With WHOLE the one chunk is all of L: `asked` gets the gradient of the state that enters it, and `d_skip`
    (B, 1, D), which grows in the rebuild else, grows here. With ADD, what is in `dz_out` and `y_out` is added to.
    """
    if WIDTH:
        D, u_sl, dt_sl, dy_sl, z_sl = WIDTH, WIDTH, WIDTH, WIDTH, WIDTH * Z_ROW
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
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    skip = tl.load(D_skip + d, mask=live, other=0.0).to(tl.float32) if HAS_SKIP else 0.0

    slab = slab_chunks.to(tl.int64) * chunk
    first = (c0 + s).to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    groups = (steps + K - 1) // K
    slab_row = b * slab + s * chunk
    part_ptr = d_coupling + block.to(tl.int64) * (batch * slab) * (2 * N)
    part_ptr += lane // 16 * (N // 2) + lane % (N // 2)
    writes = lane % 16 < N // 2
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    decay = kept_state(scaled_A + (n0 // N * blocks + block) * (N * BD), lane, N)
    lanes = (((b * slab_chunks + s) * NP + n0) * blocks + block) * BD + lane
    g = load_state(asked + lanes, blocks * BD, live, N, False)
    grad_A = zeros_like_state(d, N)
    grad_bias = tl.zeros((BD,), tl.float32)
    grad_skip = tl.zeros((BD,), tl.float32)
    for r in tl.range(0, groups, num_stages=STAGES):
        group = groups - 1 - r
        i0 = group * K
        place = ((b * slab_chunks + s) * (chunk // K) + group) * (NP // N) + n0 // N
        h = kept_state(kept + (place * blocks + block) * (N * BD), lane, N)
        token = L - 1 - (first + i0) if REVERSE else first + i0
        u_ptr = u + b * u_sb + token * u_sl + d * u_sd
        dt_ptr = dt + b * dt_sb + token * dt_sl + d * dt_sd
        z_ptr = z + b * z_sb + token * z_sl + d * z_sd
        dy_ptr = dy + b * dy_sb + token * dy_sl + d * dy_sd
        rows = coupling + (b * row_count + token - row_first) * (4 * NP) + 2 * n0
        out_row = (b * L + token) * D
        at_sum = (slab_row + i0) * D + d
        part = part_ptr + (slab_row + i0) * (2 * N)
        raws = load_group(dt_ptr, way * dt_sl, i0, steps, live, K, MASK_L, MASKED)
        inputs = load_group(u_ptr, way * u_sl, i0, steps, live, K, MASK_L, MASKED)
        dys = load_group(dy_ptr, way * dy_sl, i0, steps, live, K, MASK_L, MASKED)
        zs = inputs
        if HAS_GATE:
            zs = load_group(z_ptr, way * z_sl, i0, steps, live, K, MASK_L, MASKED)
        sums_y = inputs
        sums_x = inputs
        sums_a = inputs
        if not FIRST:
            sums_y = load_group(sum_y + at_sum, D, i0, steps, live, K, MASK_L, MASKED)
            sums_x = load_group(sum_x + at_sum, D, i0, steps, live, K, MASK_L, MASKED)
            sums_a = load_group(sum_a + at_sum, D, i0, steps, live, K, MASK_L, MASKED)
        deltas = ()
        us = ()
        grads = ()
        ys = ()
        dzs = ()
        decays = ()
        olds = ()
        dcs = ()
        for j in tl.static_range(K):
            valid = live & (i0 + j < steps) if MASK_L else live
            x_in = inputs[j].to(tl.float32)
            grad = dys[j].to(tl.float32)
            delta = step_size(raws[j].to(tl.float32), bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            row_at = tl.minimum(j, steps - 1 - i0) if MASK_L else j
            row_b, row_c = load_lane_rows(rows + row_at * way * (4 * NP), N, NP)
            dz = grad
            silu = grad
            if HAS_GATE:
                gate_in = zs[j].to(tl.float32)
                gate = sigmoid(gate_in)
                dz = grad * (gate * (1.0 + gate_in * (1.0 - gate)))
                silu = gate_in * gate
                grad = grad * silu
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + i0 + j, L), N)
            x = delta * x_in
            sides = ((delta, x, grad), (partners(delta, lane), partners(x, lane), partners(grad, lane)))
            own_y = tl.zeros((BD,), tl.float32)
            other_y = tl.zeros((BD,), tl.float32)
            new_h = ()
            dc = ()
            a_j = ()
            old_j = ()
            for n in tl.static_range(N):
                delta_n, x_n, grad_n = sides[n // (N // 2)]
                a = tl.exp2(delta_n * decay[n])
                old = a * h[n]
                now = x_n * row_b[n % (N // 2)] + old
                if n < N // 2:
                    own_y = row_c[n] * now + own_y
                    dc = dc + (grad_n * now,)
                else:
                    other_y = row_c[n - N // 2] * now + other_y
                a_j = a_j + (a,)
                old_j = old_j + (old,)
                new_h = new_h + (now,)
            both = ()
            for n in tl.static_range(N // 2):
                both = both + (sides[1][2] * new_h[n + N // 2] + dc[n],)
            y = own_y + partners(other_y, lane) if HAS_GATE or HAS_Y else own_y
            if HAS_SKIP and FIRST:
                y += skip * x_in
            if HAS_GATE or HAS_Y:
                if not FIRST:
                    y += sums_y[j]
                if LAST:
                    dz = dz * y
                    if HAS_GATE:
                        y = y * silu
            h = new_h
            decays = decays + (a_j,)
            olds = olds + (old_j,)
            dcs = dcs + (sum_over_lanes(both, lane, N),)
            deltas = deltas + (delta,)
            us = us + (x_in,)
            grads = grads + (grad,)
            dzs = dzs + (dz,)
            ys = ys + (y,)
        if ADD and LAST:
            more_dz = ()
            more_y = ()
            for j in tl.static_range(K):
                valid = live & (i0 + j < steps) if MASK_L else live
                if HAS_GATE:
                    there = dz_out + out_row * DZ_ROW + d + j * way * D * DZ_ROW
                    more_dz = more_dz + (dzs[j] + load_row(there, valid, MASKED),)
                if HAS_Y:
                    more_y = more_y + (ys[j] + load_row(y_out + out_row + d + j * way * D, valid, MASKED),)
            if HAS_GATE:
                dzs = more_dz
            if HAS_Y:
                ys = more_y
        for j in tl.static_range(K):
            valid = live & (i0 + j < steps) if MASK_L else live
            store_row(part + j * (2 * N) + N, dcs[j], writes & (i0 + j < steps) if MASK_L else writes, True)
            if LAST:
                if HAS_GATE:
                    store_row(dz_out + out_row * DZ_ROW + d + j * way * D * DZ_ROW, dzs[j], valid, MASKED)
                if HAS_Y:
                    store_row(y_out + out_row + d + j * way * D, ys[j], valid, MASKED)
            elif HAS_GATE or HAS_Y:
                store_row(sum_y + at_sum + j * D, ys[j], valid, MASKED)
        for j in tl.static_range(K - 1, -1, -1):
            valid = live & (i0 + j < steps) if MASK_L else live
            row_at = tl.minimum(j, steps - 1 - i0) if MASK_L else j
            row_b, row_c = load_lane_rows(rows + row_at * way * (4 * NP), N, NP)
            du_t = tl.zeros((BD,), tl.float32)
            ddt_t = tl.zeros((BD,), tl.float32)
            # Exchanged a second time, in other words lest the first be kept: few registers decide about spills.
            there = (lane + 16) % 32
            mine = (deltas[j], deltas[j] * us[j], grads[j])
            theirs = (tl.gather(mine[0], there, 0), tl.gather(mine[1], there, 0), tl.gather(mine[2], there, 0))
            again = (mine, theirs)
            other_du = tl.zeros((BD,), tl.float32)
            other_ddt = tl.zeros((BD,), tl.float32)
            new_g = ()
            new_A = ()
            db = ()
            for n in tl.static_range(N):
                delta_n, x_n, grad_n = again[n // (N // 2)]
                full = grad_n * row_c[n % (N // 2)] + g[n]
                through = full * olds[j][n]
                if MASK_L:
                    through = tl.where(i0 + j < steps, through, 0.0)
                if n < N // 2:
                    du_t = full * row_b[n] + du_t
                    ddt_t = through * decay[n] + ddt_t
                    db = db + (full * x_n,)
                else:
                    other_du = full * row_b[n - N // 2] + other_du
                    other_ddt = through * decay[n] + other_ddt
                    db = db + (full * x_n + db[n - N // 2],)
                new_A = new_A + (through * delta_n + grad_A[n],)
                new_g = new_g + (full * decays[j][n],)
            du_t += partners(other_du, lane)
            ddt_t += partners(other_ddt, lane)
            g = new_g
            grad_A = new_A
            if HAS_WALLS:
                g = cut(g, wall_before(walls, b, first + i0 + j, L), N)
            summed = ()
            for n in tl.static_range(N // 2):
                summed = summed + (db[n + N // 2],)
            db_t = sum_over_lanes(summed, lane, N)
            store_row(part + j * (2 * N), db_t, writes & (i0 + j < steps) if MASK_L else writes, True)
            if not FIRST:
                du_t += sums_x[j]
                ddt_t += sums_a[j]
            if LAST:
                ddt_t = us[j] * du_t + ddt_t * LN2
                du_t = deltas[j] * du_t
                if HAS_SKIP:
                    du_t += skip * grads[j]
                    if WHOLE:
                        grad_skip += us[j] * grads[j]
                if SOFTPLUS:
                    ddt_t = ddt_t * softplus_slope(deltas[j])
                if MASKED:
                    ddt_t = tl.where(valid, ddt_t, 0.0)
                grad_bias += ddt_t
                store_row(du + out_row + d + j * way * D, du_t, valid, MASKED)
                store_row(ddt + out_row + d + j * way * D, ddt_t, valid, MASKED)
            else:
                store_row(sum_x + at_sum + j * D, du_t, valid, MASKED)
                store_row(sum_a + at_sum + j * D, ddt_t, valid, MASKED)
    grown = (((b * most_chunks + s) * NP + n0) * blocks + block) * BD + lane
    for n in tl.static_range(N):
        place = grown + n * blocks * BD
        tl.store(dA + place, grad_A[n] + tl.load(dA + place))
    if LAST:
        place = (b * most_chunks + s) * D + d
        tl.store(d_bias + place, grad_bias + tl.load(d_bias + place, mask=live, other=0.0), mask=live)
        if HAS_SKIP and WHOLE:
            tl.store(d_skip + place, grad_skip, mask=live)
    if WHOLE:
        for n in tl.static_range(N):
            tl.store(asked + grown + n * blocks * BD, g[n])


@Kernel
@triton.jit(do_not_specialize=["L", "n_real", "rows", "slab", "first", "blocks"])
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
    b_sb,
    b_sl,
    c_sb,
    c_sl,
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
    write = live[:, None] & (n0 + n < n_real)[None, :]
    tl.store(dB + (b * b_sb + token * b_sl)[:, None] + n0 + n[None, :], db, mask=write)
    tl.store(dC + (b * c_sb + token * c_sl)[:, None] + n0 + n[None, :], dc, mask=write)
