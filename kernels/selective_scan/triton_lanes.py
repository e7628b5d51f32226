"""The layout of the backward kernels: who holds which states, and how lanes trade and add them.

A warp has 32 channels and a tile of N states; a lane owns one channel and does its work per token. Of the
states, a lane holds one half, those of its own channel and those of its partner's, 16 lanes away: so B and C,
of which every lane needs its own copy in registers, cost half the loads, which would otherwise bound these
kernels. Sums over states take one exchange with the partner. Sums over channels run across the 16 lanes of a
half; so that the first step needs no selections, the registers of lanes with bit 2 set hold their states with
that bit flipped. `scaled_A`, `kept`, `asked`, `carry` and `dA` are in this *lane order*: register by register,
32 lanes side by side.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl


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
def keep_channel(ptr, h, lane, N: tl.constexpr):
    """The same from lanes that hold all N states of their own channel."""
    for k in tl.static_range(N // 4):
        quad = (lane & (N // 2 - 1) & 4) // 4 ^ (k % (N // 8))
        at = tl.where(lane // 16 == k // (N // 8), quad * 128 + lane * 4, (N // 8 + quad) * 128 + (lane ^ 16) * 4)
        four = tl.join(tl.join(h[4 * k], h[4 * k + 2]), tl.join(h[4 * k + 1], h[4 * k + 3]))
        tl.store(ptr + at[:, None] + tl.arange(0, 4)[None, :], four.reshape(32, 4))


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
