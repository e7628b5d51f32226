"""The kernels of the short convolution; triton.py says what steps and walls are."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def input(
    x, initial, b, i, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd,
    TAPS: tl.constexpr, HAS_INITIAL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Inputs of steps i (STEPS,) and channels d (WIDTH,), fp32; before step 0 those of the initial state."""
    token = length - 1 - i if REVERSE else i
    here = ((i >= 0) & (i < length))[:, None] & live[None, :]
    value = tl.load(x + b * x_sb + token[:, None] * x_sl + d[None, :] * x_sd, mask=here, other=0.0).to(tl.float32)
    if HAS_INITIAL:
        # Time order: the step before the first is last, or first with REVERSE.
        k = -1 - i if REVERSE else TAPS - 1 + i
        halo = ((i < 0) & (i > -TAPS))[:, None] & live[None, :]
        at = b * i_sb + k[:, None] * i_sk + d[None, :] * i_sd
        value += tl.load(initial + at, mask=halo, other=0.0).to(tl.float32)
    return value


@triton.jit
def wall(reset, b, i, length, r_sb, r_sl, REVERSE: tl.constexpr):
    """Whether there is a wall before each step i."""
    token = length - i if REVERSE else i
    inside = (token >= 0) & (token < length)
    return tl.load(reset + b * r_sb + token * r_sl, mask=inside, other=0) != 0


@triton.jit
def before_activation(
    x, weight, bias, initial, reset, b, i, d, live, length, x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd, r_sb, r_sl,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((STEPS, WIDTH), tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + d, mask=live, other=0.0).to(tl.float32)[None, :]
    cut = tl.zeros((STEPS,), tl.int1)
    for m in tl.static_range(TAPS):
        value = input(
            x, initial, b, i - m, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd, TAPS, HAS_INITIAL, REVERSE
        )
        if HAS_RESET:
            if m > 0:
                cut = cut | wall(reset, b, i - m + 1, length, r_sb, r_sl, REVERSE)
            value = tl.where(cut[:, None], 0.0, value)
        tap = tl.load(weight + d * w_sd + (TAPS - 1 - m) * w_sk, mask=live, other=0.0).to(tl.float32)
        total += tap[None, :] * value
    return total


@triton.jit
def conv_kernel(
    x, weight, bias, initial, reset, y, length, channels,
    x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd, r_sb, r_sl,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_RESET: tl.constexpr,
    SILU: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    blocks, tiles = tl.cdiv(channels, WIDTH), tl.cdiv(length, STEPS)
    pid = tl.program_id(0)
    d = ((pid % blocks) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    i = (pid // blocks % tiles).to(tl.int64) * STEPS + tl.arange(0, STEPS)
    b = (pid // (blocks * tiles)).to(tl.int64)
    live = d < channels
    total = before_activation(
        x, weight, bias, initial, reset, b, i, d, live, length, x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd,
        r_sb, r_sl, TAPS, HAS_BIAS, HAS_INITIAL, HAS_RESET, REVERSE, STEPS, WIDTH,
    )  # fmt: skip
    if SILU:
        total = total / (1.0 + tl.exp(-total))
    token = length - 1 - i if REVERSE else i
    mask = (i < length)[:, None] & live[None, :]
    tl.store(y + (b * length + token)[:, None] * channels + d[None, :], total, mask=mask)


@triton.jit
def conv_backward_kernel(
    x, weight, bias, initial, reset, dy, dx, d_initial, parts, length, channels, runs,
    x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd, r_sb, r_sl, g_sb, g_sl, g_sd,
    RUN: tl.constexpr, PADDED: tl.constexpr,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_RESET: tl.constexpr,
    SILU: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs of RUN tiles, from step 1 - TAPS on, and their part of the taps' and the bias's."""
    blocks = tl.cdiv(channels, WIDTH)
    pid = tl.program_id(0)
    d = ((pid % blocks) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    run = pid // blocks % runs
    b = (pid // (blocks * runs)).to(tl.int64)
    live = d < channels
    k = tl.arange(0, PADDED)
    sums = tl.zeros((PADDED, WIDTH), tl.float32)
    for tile in range(0, RUN):
        i = (run.to(tl.int64) * RUN + tile) * STEPS + tl.arange(0, STEPS) - (TAPS - 1)
        own = input(x, initial, b, i, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd, TAPS, HAS_INITIAL, REVERSE)
        total = tl.zeros((STEPS, WIDTH), tl.float32)
        cut = tl.zeros((STEPS,), tl.int1)
        # Input i reaches the outputs of steps i + m.
        for m in tl.static_range(TAPS):
            at = i + m
            token = length - 1 - at if REVERSE else at
            there = ((at >= 0) & (at < length))[:, None] & live[None, :]
            g = tl.load(dy + b * g_sb + token[:, None] * g_sl + d[None, :] * g_sd, mask=there, other=0.0)
            g = g.to(tl.float32)
            if SILU:
                value = before_activation(
                    x, weight, bias, initial, reset, b, at, d, live, length, x_sb, x_sl, x_sd, w_sd, w_sk,
                    i_sb, i_sk, i_sd, r_sb, r_sl, TAPS, HAS_BIAS, HAS_INITIAL, HAS_RESET, REVERSE, STEPS, WIDTH,
                )  # fmt: skip
                gate = 1.0 / (1.0 + tl.exp(-value))
                g = tl.where(there, g * gate * (1.0 + value * (1.0 - gate)), 0.0)
            if m == 0:
                sums += tl.where((k == TAPS)[:, None], tl.sum(g, 0)[None, :], 0.0)
            product = g * own
            if HAS_RESET:
                if m > 0:
                    cut = cut | wall(reset, b, at, length, r_sb, r_sl, REVERSE)
                g = tl.where(cut[:, None], 0.0, g)
                product = tl.where(cut[:, None], 0.0, product)
            tap = tl.load(weight + d * w_sd + (TAPS - 1 - m) * w_sk, mask=live, other=0.0).to(tl.float32)
            total += tap[None, :] * g
            sums += tl.where((k == TAPS - 1 - m)[:, None], tl.sum(product, 0)[None, :], 0.0)
        token = length - 1 - i if REVERSE else i
        mask = ((i >= 0) & (i < length))[:, None] & live[None, :]
        tl.store(dx + (b * length + token)[:, None] * channels + d[None, :], total, mask=mask)
        if HAS_INITIAL:
            place = -1 - i if REVERSE else TAPS - 1 + i
            halo = ((i < 0) & (i > -TAPS))[:, None] & live[None, :]
            tl.store(d_initial + (b * (TAPS - 1) + place)[:, None] * channels + d[None, :], total, mask=halo)
    at = parts + ((b * runs + run) * (TAPS + 1) + k)[:, None] * channels + d[None, :]
    tl.store(at, sums, mask=(k <= TAPS)[:, None] & live[None, :])
