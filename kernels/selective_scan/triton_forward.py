"""The forward scan on a GPU: state pass per chunk, carry across chunks, output pass per chunk.

One program is one warp; a lane is a channel and keeps its whole state in registers, so that the sum over
states needs no shuffles and walks the tokens of its chunk in order. The README derives the passes.

Steps are counted in scan order; step i is token i, or token L - 1 - i with `REVERSE`. A *wall* before a
step cuts the recurrence there. `coupling` is fp32 (B, L, 2, N): the rows of B and of C side by side, read
four numbers at a time.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(exp(-|x|)); log1p(e)/e is a polynomial of degree 8, within 1.4e-7 on [0, 1]."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    p = 0.005105825802883986
    p = p * e - 0.02899195640092088
    p = p * e + 0.0773807383940136
    p = p * e - 0.13590600236546665
    p = p * e + 0.19071309583871357
    p = p * e - 0.24833945456988804
    p = p * e + 0.33317934322014175
    p = p * e - 0.49999435690456595
    p = p * e + 0.9999999651599156
    return tl.maximum(x, 0.0) + e * p


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2E))


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
def prefetch_coupling(row, ahead, lane, U: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr, ASM: tl.constexpr):
    """The rows of the U steps that begin `ahead` tokens from `row`, which lie next to one another."""
    first = row + tl.where(ahead < 0, ahead - (U - 1), ahead) * (2 * NP)
    SPAN: tl.constexpr = U * 2 * NP
    if SPAN >= BD:
        prefetch(first + lane * (SPAN // BD), ASM)
    else:
        prefetch(first + lane % SPAN, ASM)


@triton.jit
def load_coupling(row, N: tl.constexpr, ASM: tl.constexpr):
    """N numbers that all lanes share, as scalars."""
    out = ()
    for i in tl.static_range(N // 4):
        a, b, c, d = load_four(row + 4 * i, ASM)
        out = out + (a, b, c, d)
    return out


@triton.jit
def load_decay(A, d, mask, n0, a_sd, a_sn, n_real, N: tl.constexpr, MASKED: tl.constexpr):
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


@triton.jit
def coupling_kernel(
    B, C, out, L, N, total, b_sb, b_sl, b_sn, c_sb, c_sl, c_sn, NP: tl.constexpr, NPW: tl.constexpr, ROWS: tl.constexpr
):
    """Rows of B and C, whatever their strides and dtypes, to `coupling`; padded states are zero."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = tl.arange(0, NPW)
    b, t = row // L, row % L
    read = (row < total)[:, None] & (n < N)[None, :]
    write = (row < total)[:, None] & (n < NP)[None, :]
    vb = tl.load(B + (b * b_sb + t * b_sl)[:, None] + n[None, :] * b_sn, mask=read, other=0.0)
    vc = tl.load(C + (b * c_sb + t * c_sl)[:, None] + n[None, :] * c_sn, mask=read, other=0.0)
    ptr = out + row[:, None] * (2 * NP) + n[None, :]
    tl.store(ptr, vb.to(tl.float32), mask=write)
    tl.store(ptr + NP, vc.to(tl.float32), mask=write)


@triton.jit
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
    BD: tl.constexpr,
    U: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_WALLS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASK_L: tl.constexpr,
    MASK_D: tl.constexpr,
    ASM: tl.constexpr,
):
    """What a chunk leaves when it begins from zero, (B, chunks, NP, D), and its sum of dt, (B, chunks, D)."""
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, BD)
    pid = tl.program_id(0)
    lane = tl.arange(0, BD)
    d = (pid % blocks) * BD + lane
    c = (pid // blocks) % n_chunks
    b = (pid // (blocks * n_chunks)).to(tl.int64)
    n0 = tl.program_id(1) * N
    live = d < D
    d = d.to(tl.int64)
    near = tl.minimum(d, D - 1) if MASK_D else d
    decay = load_decay(A, d, live, n0, a_sd, a_sn, n_real, N, True)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0

    first = c.to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + near * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + near * dt_sd
    row_ptr = coupling + (b * L + token) * (2 * NP) + n0
    h = zeros_like_state(d, N)
    total = tl.zeros((BD,), tl.float32)
    for i in range(0, steps, U):
        # The next group is asked for while this one is computed; the last one asks for itself again.
        ahead = tl.where(i + U < steps, U, 0) * way
        left = tl.where(i + U < steps, steps - 1 - i - U, steps - 1 - i)
        prefetch_tokens(u_ptr + ahead * u_sl, way * u_sl, lane, left, U, ASM)
        prefetch_tokens(dt_ptr + ahead * dt_sl, way * dt_sl, lane, left, U, ASM)
        prefetch_coupling(row_ptr, ahead, lane, U, NP, BD, ASM)
        raws = ()
        us = ()
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            raws = raws + (load_row(dt_ptr + j * way * dt_sl, valid, MASKED),)
            us = us + (load_row(u_ptr + j * way * u_sl, valid, MASKED),)
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j], bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            # A masked step reads the last real row: its x is zero.
            at = tl.minimum(j, steps - 1 - i) if MASK_L else j
            row = load_coupling(row_ptr + at * way * (2 * NP), N, ASM)
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + i + j, L), N)
            h = advance(h, delta, delta * us[j], decay, row, N)
            total += delta
        u_ptr += U * way * u_sl
        dt_ptr += U * way * dt_sl
        row_ptr += U * way * (2 * NP)
    store_state(states + ((b * n_chunks + c) * NP + n0) * D + d, h, D, live, N)
    tl.store(sums + (b * n_chunks + c) * D + d, total, mask=live)


@triton.jit
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
    for c in range(0, n_chunks, U):
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


@triton.jit
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
    sum_y,
    y,
    final,
    L,
    D,
    n_real,
    chunk,
    n_chunks,
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
    BD: tl.constexpr,
    U: tl.constexpr,
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
    """y of a chunk from the state that enters it, and the final state.

    With more states than one tile holds, one launch per tile adds to `sum_y` (fp32), and the last gates.
    """
    MASKED: tl.constexpr = MASK_L or MASK_D
    blocks = tl.cdiv(D, BD)
    pid = tl.program_id(0)
    lane = tl.arange(0, BD)
    d = (pid % blocks) * BD + lane
    c = (pid // blocks) % n_chunks
    b = (pid // (blocks * n_chunks)).to(tl.int64)
    live = d < D
    d = d.to(tl.int64)
    near = tl.minimum(d, D - 1) if MASK_D else d
    decay = load_decay(A, d, live, n0, a_sd, a_sn, n_real, N, True)
    bias = tl.load(dt_bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    skip = tl.load(D_skip + d, mask=live, other=0.0).to(tl.float32) if HAS_SKIP else 0.0

    first = c.to(tl.int64) * chunk
    steps = tl.minimum(chunk, L - first).to(tl.int32)
    token = L - 1 - first if REVERSE else first
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    u_ptr = u + b * u_sb + token * u_sl + near * u_sd
    dt_ptr = dt + b * dt_sb + token * dt_sl + near * dt_sd
    z_ptr = z + b * z_sb + token * z_sl + near * z_sd
    row_ptr = coupling + (b * L + token) * (2 * NP) + n0
    y_ptr = y + (b * L + token) * D + d
    sum_ptr = sum_y + (b * L + token) * D + d
    h = load_state(states + ((b * n_chunks + c) * NP + n0) * D + d, D, live, N, MASK_D)
    for i in range(0, steps, U):
        # The next group is asked for while this one is computed; the last one asks for itself again.
        ahead = tl.where(i + U < steps, U, 0) * way
        left = tl.where(i + U < steps, steps - 1 - i - U, steps - 1 - i)
        prefetch_tokens(u_ptr + ahead * u_sl, way * u_sl, lane, left, U, ASM)
        prefetch_tokens(dt_ptr + ahead * dt_sl, way * dt_sl, lane, left, U, ASM)
        if HAS_GATE and LAST:
            prefetch_tokens(z_ptr + ahead * z_sl, way * z_sl, lane, left, U, ASM)
        prefetch_coupling(row_ptr, ahead, lane, U, NP, BD, ASM)
        raws = ()
        us = ()
        zs = ()
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            raws = raws + (load_row(dt_ptr + j * way * dt_sl, valid, MASKED),)
            us = us + (load_row(u_ptr + j * way * u_sl, valid, MASKED),)
            if HAS_GATE and LAST:
                zs = zs + (load_row(z_ptr + j * way * z_sl, valid, MASKED),)
        out = ()
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            delta = step_size(raws[j], bias, valid, HAS_BIAS, SOFTPLUS, MASKED)
            x_in = us[j]
            at = tl.minimum(j, steps - 1 - i) if MASK_L else j
            row_b = load_coupling(row_ptr + at * way * (2 * NP), N, ASM)
            row_c = load_coupling(row_ptr + at * way * (2 * NP) + NP, N, ASM)
            if HAS_WALLS:
                h = cut(h, wall_before(walls, b, first + i + j, L), N)
            h = advance(h, delta, delta * x_in, decay, row_b, N)
            if not FIRST:
                total = load_row(sum_ptr + j * way * D, valid, MASKED)
            elif HAS_SKIP:
                total = skip * x_in
            else:
                total = tl.zeros((BD,), tl.float32)
            for n in tl.static_range(N):
                total = row_c[n] * h[n] + total
            if HAS_GATE and LAST:
                gate_in = zs[j]
                total = total * (gate_in * sigmoid(gate_in))
            out = out + (total,)
        for j in tl.static_range(U):
            valid = live & (i + j < steps) if MASK_L else live
            ptr = y_ptr + j * way * D if LAST else sum_ptr + j * way * D
            store_row(ptr, out[j], valid, MASKED)
        u_ptr += U * way * u_sl
        dt_ptr += U * way * dt_sl
        z_ptr += U * way * z_sl
        row_ptr += U * way * (2 * NP)
        y_ptr += U * way * D
        sum_ptr += U * way * D
    if c == n_chunks - 1:
        for n in tl.static_range(N):
            tl.store(final + (b * D + d) * n_real + n0 + n, h[n], mask=live & (n0 + n < n_real))
