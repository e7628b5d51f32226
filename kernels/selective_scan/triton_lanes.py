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

from genomamba.kernels.selective_scan.triton_steps import columns


@triton.jit
def lane_state(lane, r, N: tl.constexpr):
    """The state, of either channel, in register r < N / 2 of a lane."""
    return lane // 16 * (N // 2) + (r ^ (lane & (N // 2 - 1) & 4))


@triton.jit
def lane_order(k, N: tl.constexpr):
    """Which state number k of a row for lanes is of: per tile and half, one turn for each value of bit 2."""
    HALF: tl.constexpr = N // 2
    r = k % HALF
    return k // (2 * N) * N + k // N % 2 * HALF + (r ^ (k // HALF % 2 * 4 & (HALF - 1)))


@triton.jit
def load_lane_rows(row, N: tl.constexpr, NP: tl.constexpr):
    """B and C of one step for each lane's N / 2 states, in the order of its registers.

    The row holds every order that a lane may have, two for each half of the states, so that lanes only read.
    """
    k = tl.arange(0, 4 * N)
    both = tl.load(row + k // (2 * N) * (2 * NP) + k % (2 * N))
    row_b, row_c = tl.split(tl.permute(tl.reshape(both, (2, 2 * N)), (1, 0)))
    return for_lanes(row_b, N), for_lanes(row_c, N)


@triton.jit
def for_lanes(row, N: tl.constexpr):
    """N / 2 vectors from the orders of a row: lane bit 4 chooses the half, bit 2 the turn."""
    orders = tl.reshape(row, (2, 1, 2, 1, N // 2))
    return columns(tl.reshape(tl.broadcast_to(orders, (2, 2, 2, 4, N // 2)), (32, N // 2)))


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
