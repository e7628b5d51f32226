"""The backward scan on a GPU, slab by slab from the last step to the first; the README derives it.

Per slab: `rebuild_kernel` walks each chunk in scan order from the state that entered it, keeps the state at
every K-th step, and sums what the chunk's outputs ask of its entering state. `adjoint_carry_kernel` joins
those across chunks into the gradient of the state that leaves each one. `gradient_kernel` walks each chunk
backwards, K steps at a time, from the kept states. With g_t the gradient of h_t, and a_t = exp(dt_t A),

    g_t = C_t dy_t + a_{t+1} g_{t+1}              dB_t = Σ_d g_t dt_t u_t      dC_t = Σ_d dy_t h_t
    d(dt_t) = Σ_n g_t (A a_t h_{t-1} + B_t u_t)   du_t = dt_t Σ_n g_t B_t      dA = Σ_t g_t dt_t a_t h_{t-1}

where dy is taken before the gate. a_t h_{t-1} is formed as such, never as h_t - dt_t B_t u_t, which cancels.

The layout of rebuild and gradient. A warp has 32 channels and a tile of N states; a lane owns one channel and
does its work per token. Of the states, a lane holds one half, those of its own channel and those of its
partner's, 16 lanes away: so B and C, of which every lane needs its own copy in registers, cost half the
loads, which would otherwise bound these kernels. Sums over states take one exchange with the partner. Sums
over channels run across the 16 lanes of a half; so that the first step needs no selections, the registers of
lanes with bit 2 set hold their states with that bit flipped. `scaled_A`, `kept`, `asked`, `carry` and `dA`
are in this *lane order*: register by register, 32 lanes side by side.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.selective_scan.triton_forward import (
    LOG2E,
    cut,
    load_group,
    load_row,
    load_spread,
    load_state,
    sigmoid,
    step_size,
    store_row,
    wall_before,
    zeros_like_state,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_four(ptr, ASM: tl.constexpr, AGAIN: tl.constexpr = False):
    """Four neighbouring numbers from a 16-byte aligned address (of each lane), never written by the same kernel.

    As one instruction on a GPU. Besides, Triton's coalescing pass takes seconds over so many loads and
    does not see these; its interpreter knows no assembly. `AGAIN` asks for a second load of what an earlier
    one got, instead of registers that hold it until then: a different instruction, lest they be merged.
    """
    if ASM:
        return tl.inline_asm_elementwise(
            "ld.global.v4.f32 {$0, $1, $2, $3}, [$4];" if AGAIN else "ld.global.nc.v4.f32 {$0, $1, $2, $3}, [$4];",
            "=f,=f,=f,=f,l",
            [ptr.to(tl.int64)],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=not AGAIN,
            pack=1,
        )
    return tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2), tl.load(ptr + 3)


@triton.jit
def prefetch(ptr, ASM: tl.constexpr):
    """Ask for each lane's address to be in the L1 cache soon. Reads are so short that their latency decides."""
    if ASM:
        tl.inline_asm_elementwise(
            "prefetch.global.L1 [$1]; mov.b32 $0, 0;",
            "=r,l",
            [ptr.to(tl.int64)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def prefetch_tokens(ptr, stride, i, last, U: tl.constexpr, ASM: tl.constexpr):
    """The rows of channels of U tokens, at most `last` + 1: lane i of each U asks for token i, at its own channel."""
    prefetch(ptr + tl.minimum(i % U, last) * stride, ASM)


@triton.jit
def lane_state(lane, r, N: tl.constexpr):
    """The state, of either channel, in register r < N / 2 of a lane."""
    return lane // 16 * (N // 2) + (r ^ (lane & (N // 2 - 1) & 4))


@triton.jit
def load_row_lanes(row, lane, N: tl.constexpr, ASM: tl.constexpr, AGAIN: tl.constexpr = False):
    """The N / 2 numbers of a row of `coupling` for a lane's states."""
    out = ()
    for i in tl.static_range(N // 8):
        a, b, c, d = load_four(row + lane_state(lane, 4 * i, N), ASM, AGAIN)
        out = out + (a, b, c, d)
    return out


@triton.jit
def partners(value, lane):
    """What the lane that owns the other channel has."""
    return tl.gather(value, lane ^ 16, 0)


@triton.jit
def keep_state(ptr, h, lane, N: tl.constexpr):
    """N registers of each lane, four in 16 bytes, to 32 N numbers of scratch."""
    at = lane[:, None] * 4 + tl.arange(0, 4)[None, :]
    for i in tl.static_range(N // 4):
        four = tl.join(tl.join(h[4 * i], h[4 * i + 2]), tl.join(h[4 * i + 1], h[4 * i + 3]))
        tl.store(ptr + i * 128 + at, four.reshape(32, 4))


@triton.jit
def kept_state(ptr, lane, N: tl.constexpr):
    """What `keep_state` wrote."""
    at = lane[:, None] * 4 + tl.arange(0, 4)[None, :]
    out = ()
    for i in tl.static_range(N // 4):
        even, odd = tl.split(tl.load(ptr + i * 128 + at).reshape(32, 2, 2))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        out = out + (a, b, c, d)
    return out


@triton.jit
def merge(even, odd, lane, BIT: tl.constexpr):
    """Lanes with BIT clear get the sum of both lanes' `even`, the others of their `odd`."""
    upper = (lane & BIT) != 0
    return tl.where(upper, odd, even) + tl.gather(tl.where(upper, even, odd), lane ^ BIT, 0)


@triton.jit
def sum_over_lanes(values, lane, N: tl.constexpr):
    """Sums over 16 lanes of N / 2 vectors: lane l gets that of its state lane_state(l, 0) + l % 4."""
    if N == 16:
        halved = ()
        for r in tl.static_range(4):
            halved = halved + (values[r] + tl.gather(values[r + 4], lane ^ 4, 0),)
        values = halved
    total = merge(merge(values[0], values[1], lane, 1), merge(values[2], values[3], lane, 1), lane, 2)
    if N == 8:
        total += tl.gather(total, lane ^ 4, 0)
    return total + tl.gather(total, lane ^ 8, 0)


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
):
    """`kept`: the state before every K-th step, (B, slab_chunks, chunk / K, NP / N, blocks, N, BD) in number.

    `asked`: what the chunk's outputs ask of the state that enters it, (B, slab_chunks, NP, blocks, BD).
    `sums` of dt, (B, slab_chunks, D); `d_skip` grows from slab to slab, (B, most_chunks, D).
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
    rows = coupling + (b * row_count + token - row_first) * (2 * NP) + n0
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
    raws = load_group(dt_ptr, 0, way * dt_sl, 0, steps, (live,), U, MASK_L, MASKED)
    us = load_group(u_ptr, 0, way * u_sl, 0, steps, (live,), U, MASK_L, MASKED)
    dys = load_group(dy_ptr, 0, way * dy_sl, 0, steps, (live,), U, MASK_L, MASKED)
    zs = load_group(z_ptr, 0, way * z_sl, 0, steps, (live,), U, MASK_L, MASKED) if HAS_GATE else us
    spread = load_spread(rows, steps - 1, way * (2 * NP), lane, U, N, NP, True, MASK_L)
    for i in range(0, steps, U):
        if i % K == 0:
            keep_state(kept_ptr, h, lane, N)
            kept_ptr += blocks.to(tl.int64) * (NP * BD)
        # The last group loads itself again.
        more = tl.where(i + U < steps, U, 0)
        u_ptr += more * way * u_sl
        dt_ptr += more * way * dt_sl
        z_ptr += more * way * z_sl
        dy_ptr += more * way * dy_sl
        rows += more * way * (2 * NP)
        next_raws = load_group(dt_ptr, 0, way * dt_sl, i + more, steps, (live,), U, MASK_L, MASKED)
        next_us = load_group(u_ptr, 0, way * u_sl, i + more, steps, (live,), U, MASK_L, MASKED)
        next_dys = load_group(dy_ptr, 0, way * dy_sl, i + more, steps, (live,), U, MASK_L, MASKED)
        next_zs = next_us
        if HAS_GATE:
            next_zs = load_group(z_ptr, 0, way * z_sl, i + more, steps, (live,), U, MASK_L, MASKED)
        next_spread = load_spread(rows, steps - 1 - i - more, way * (2 * NP), lane, U, N, NP, True, MASK_L)
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j].to(tl.float32), bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            row_b = ()
            row_c = ()
            for r in tl.static_range(N // 2):
                row_b = row_b + (tl.gather(spread[j], lane_state(lane, r, N), 0),)
                row_c = row_c + (tl.gather(spread[j], lane_state(lane, r, N) + N, 0),)
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
        raws = next_raws
        us = next_us
        dys = next_dys
        zs = next_zs
        spread = next_spread
    place = ((b * slab_chunks + s) * NP + n0) * (blocks * BD)
    for n in tl.static_range(N):
        tl.store(asked + place + (n * blocks + pid % blocks) * BD + lane, ask[n])
    if n0 == 0:
        tl.store(sums + (b * slab_chunks + s) * D + d, total, mask=live)
        if HAS_SKIP:
            grown = (b * most_chunks + s) * D + d
            tl.store(d_skip + grown, grad_skip + tl.load(d_skip + grown, mask=live, other=0.0), mask=live)


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
    for c in range(0, slab_chunks, U):
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
    d_coupling,
    dA,
    d_bias,
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
    K: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    ASM: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
):
    """Every gradient of a chunk. Per token, partial over BD channels: `d_coupling` (blocks, B, slab, 2, N).

    Grown from slab to slab: `dA` (B, most_chunks, NP, blocks, BD), `d_bias` (B, most_chunks, D). With more states than
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
    near = tl.minimum(d, D - 1) if MASK_D else d
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
    for r in range(0, groups):
        group = groups - 1 - r
        i0 = group * K
        place = ((b * slab_chunks + s) * (chunk // K) + group) * (NP // N) + n0 // N
        h = kept_state(kept + (place * blocks + block) * (N * BD), lane, N)
        token = L - 1 - (first + i0) if REVERSE else first + i0
        u_ptr = u + b * u_sb + token * u_sl + near * u_sd
        dt_ptr = dt + b * dt_sb + token * dt_sl + near * dt_sd
        z_ptr = z + b * z_sb + token * z_sl + near * z_sd
        dy_ptr = dy + b * dy_sb + token * dy_sl + near * dy_sd
        rows = coupling + (b * row_count + token - row_first) * (2 * NP) + n0
        # What the group before needs, asked for while this one is computed; the first asks for itself again.
        back = tl.where(group > 0, -K, 0) * way
        left = steps - 1
        prefetch_tokens(u_ptr + back * u_sl, way * u_sl, lane, left, K, ASM)
        prefetch_tokens(dt_ptr + back * dt_sl, way * dt_sl, lane, left, K, ASM)
        prefetch_tokens(dy_ptr + back * dy_sl, way * dy_sl, lane, left, K, ASM)
        if HAS_GATE:
            prefetch_tokens(z_ptr + back * z_sl, way * z_sl, lane, left, K, ASM)
        lowest = rows + (back - (K - 1) if REVERSE else back) * (2 * NP)
        prefetch(lowest + lane * (2 * NP * K // BD), ASM)
        before = kept + ((place - tl.where(group > 0, NP // N, 0)) * blocks + block) * (N * BD)
        for q in tl.static_range(N // 8):
            prefetch(before + (q * BD + lane) * 8, ASM)
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
            raw = load_row(dt_ptr + j * way * dt_sl, valid, MASKED)
            x_in = load_row(u_ptr + j * way * u_sl, valid, MASKED)
            grad = load_row(dy_ptr + j * way * dy_sl, valid, MASKED)
            delta = step_size(raw, bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            at = (tl.minimum(j, steps - 1 - i0) if MASK_L else j) * way * (2 * NP)
            row_b = load_row_lanes(rows + at, lane, N, ASM)
            row_c = load_row_lanes(rows + at + NP, lane, N, ASM)
            dz = grad
            if HAS_GATE:
                gate_in = load_row(z_ptr + j * way * z_sl, valid, MASKED)
                gate = sigmoid(gate_in)
                dz = grad * (gate * (1.0 + gate_in * (1.0 - gate)))
                grad = grad * (gate_in * gate)
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
            y = own_y + partners(other_y, lane) if HAS_GATE else own_y
            if HAS_SKIP and FIRST:
                y += skip * x_in
            h = new_h
            decays = decays + (a_j,)
            olds = olds + (old_j,)
            dcs = dcs + (sum_over_lanes(both, lane, N),)
            deltas = deltas + (delta,)
            us = us + (x_in,)
            grads = grads + (grad,)
            dzs = dzs + (dz,)
            ys = ys + (y,)
        for j in tl.static_range(K):
            store_row(part_ptr + (slab_row + i0 + j) * (2 * N) + N, dcs[j], writes & (i0 + j < steps), True)
            if HAS_GATE:
                valid = live & (i0 + j < steps) if MASK_L else live
                at_sum = (slab_row + i0 + j) * D + d
                y = ys[j]
                if not FIRST:
                    y += tl.load(sum_y + at_sum, mask=valid, other=0.0)
                if LAST:
                    store_row(dz_out + (b * L + token + j * way) * D + d, dzs[j] * y, valid, MASKED)
                else:
                    store_row(sum_y + at_sum, y, valid, MASKED)
        for j in tl.static_range(K - 1, -1, -1):
            valid = live & (i0 + j < steps) if MASK_L else live
            at = (tl.minimum(j, steps - 1 - i0) if MASK_L else j) * way * (2 * NP)
            row_b = load_row_lanes(rows + at, lane, N, ASM, True)
            row_c = load_row_lanes(rows + at + NP, lane, N, ASM, True)
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
            at_out = (b * L + token + j * way) * D + d
            at_sum = (slab_row + i0 + j) * D + d
            summed = ()
            for n in tl.static_range(N // 2):
                summed = summed + (db[n + N // 2],)
            db_t = sum_over_lanes(summed, lane, N)
            store_row(part_ptr + (slab_row + i0 + j) * (2 * N), db_t, writes & (i0 + j < steps), True)
            if not FIRST:
                du_t += tl.load(sum_x + at_sum, mask=valid, other=0.0)
                ddt_t += tl.load(sum_a + at_sum, mask=valid, other=0.0)
            if LAST:
                ddt_t = us[j] * du_t + ddt_t * LN2
                du_t = deltas[j] * du_t
                if HAS_SKIP:
                    du_t += skip * grads[j]
                if SOFTPLUS:
                    ddt_t = ddt_t * softplus_slope(deltas[j])
                if MASKED:
                    ddt_t = tl.where(valid, ddt_t, 0.0)
                grad_bias += ddt_t
                store_row(du + at_out, du_t, valid, MASKED)
                store_row(ddt + at_out, ddt_t, valid, MASKED)
            else:
                store_row(sum_x + at_sum, du_t, valid, MASKED)
                store_row(sum_a + at_sum, ddt_t, valid, MASKED)
    grown = (((b * most_chunks + s) * NP + n0) * blocks + block) * BD + lane
    for n in tl.static_range(N):
        place = grown + n * blocks * BD
        tl.store(dA + place, grad_A[n] + tl.load(dA + place))
    if LAST:
        place = (b * most_chunks + s) * D + d
        tl.store(d_bias + place, grad_bias + tl.load(d_bias + place, mask=live, other=0.0), mask=live)


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
