"""The kernels of the short convolution; triton.py says what steps and walls are.

A program is one warp; each lane has two neighbouring channels and walks the steps of its run in order, so that
every input is read once and what the taps reach back to stays in registers. U rows are asked for at a time:
memory, not arithmetic, is the limit.
"""

# ruff: noqa: RUF005 (Triton tuples grow by addition)
from __future__ import annotations

import triton
import triton.language as tl

from genomamba.kernels.launching import Kernel
from genomamba.kernels.triton_math import LOG2E


@triton.jit
def input(
    x, initial, b, i, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd,
    TAPS: tl.constexpr, HAS_INITIAL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The input of step i at channels d, fp32; before step 0 the initial state's."""
    token = length - 1 - i if REVERSE else i
    here = live & (i >= 0) & (i < length)
    value = tl.load(x + b * x_sb + token * x_sl + d * x_sd, mask=here, other=0.0).to(tl.float32)
    if HAS_INITIAL:
        # Time order: the step before the first is last, or first with REVERSE.
        k = -1 - i if REVERSE else TAPS - 1 + i
        halo = live & (i < 0) & (i > -TAPS)
        value += tl.load(initial + b * i_sb + k * i_sk + d * i_sd, mask=halo, other=0.0).to(tl.float32)
    return value


@triton.jit
def wall(reset, b, i, length, r_sb, r_sl, REVERSE: tl.constexpr):
    """Whether there is a wall before step i."""
    token = length - i if REVERSE else i
    inside = (token >= 0) & (token < length)
    return tl.load(reset + b * r_sb + token * r_sl, mask=inside, other=0) != 0


@triton.jit
def load_taps(weight, d, live, w_sd, w_sk, TAPS: tl.constexpr):
    """Tap m meets the input m steps back."""
    taps = ()
    for m in tl.static_range(TAPS):
        taps = taps + (tl.load(weight + d * w_sd + (TAPS - 1 - m) * w_sk, mask=live, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def remember(value, past, TAPS: tl.constexpr):
    """The inputs 1 to TAPS - 1 steps back, one step later."""
    out = ()
    if TAPS > 1:
        out = out + (value,)
        for m in tl.static_range(TAPS - 2):
            out = out + (past[m],)
    return out


@triton.jit
def behind(closed, past, TAPS: tl.constexpr):
    """Zero where a wall stands between, by selection: no NaN passes."""
    out = ()
    for m in tl.static_range(TAPS - 1):
        out = out + (tl.where(closed, 0.0, past[m]),)
    return out


@triton.jit
def convolve(value, past, taps, start, TAPS: tl.constexpr):
    total = start + taps[0] * value
    for m in tl.static_range(TAPS - 1):
        total += taps[m + 1] * past[m]
    return total


@Kernel
@triton.jit(do_not_specialize=["length", "channels"])
def conv_kernel(
    x, weight, bias, initial, reset, y, length, channels,
    x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd, r_sb, r_sl,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_RESET: tl.constexpr,
    SILU: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, U: tl.constexpr, WIDTH: tl.constexpr,
    MASK_D: tl.constexpr,
):  # fmt: skip
    """y of STEPS steps."""
    blocks, runs = tl.cdiv(channels, WIDTH), tl.cdiv(length, STEPS)
    pid = tl.program_id(0)
    d = ((pid % blocks) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    first = (pid // blocks % runs).to(tl.int64) * STEPS
    b = (pid // (blocks * runs)).to(tl.int64)
    live = d < channels if MASK_D else tl.full((WIDTH,), 1, tl.int1)
    taps = load_taps(weight, d, live, w_sd, w_sk, TAPS)
    start = tl.load(bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else tl.zeros((WIDTH,), tl.float32)
    past = ()
    for m in tl.static_range(TAPS - 1):
        value = input(
            x, initial, b, first - 1 - m, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd, TAPS, HAS_INITIAL,
            REVERSE,
        )  # fmt: skip
        past = past + (value,)
    if HAS_RESET:
        # Walls before steps first - m to first - 1 shut out what lies further back.
        shut = tl.zeros((), tl.int1)
        kept = ()
        for m in tl.static_range(TAPS - 1):
            kept = kept + (tl.where(shut, 0.0, past[m]),)
            shut = shut | wall(reset, b, first - 1 - m, length, r_sb, r_sl, REVERSE)
        past = kept
    for i in range(first, tl.minimum(first + STEPS, length), U):
        values = ()
        for j in tl.static_range(U):
            token = length - 1 - i - j if REVERSE else i + j
            at = x + b * x_sb + token * x_sl + d * x_sd
            values = values + (tl.load(at, mask=live & (i + j < length), other=0.0),)
        for j in tl.static_range(U):
            value = values[j].to(tl.float32)
            if HAS_RESET:
                past = behind(wall(reset, b, i + j, length, r_sb, r_sl, REVERSE), past, TAPS)
            total = convolve(value, past, taps, start, TAPS)
            past = remember(value, past, TAPS)
            if SILU:
                total = total / (1.0 + tl.exp2(-total * LOG2E))
            token = length - 1 - i - j if REVERSE else i + j
            tl.store(y + (b * length + token) * channels + d, total, mask=live & (i + j < length))


@Kernel
@triton.jit(do_not_specialize=["length", "channels", "runs"])
def conv_backward_kernel(
    x, weight, bias, initial, reset, dy, more_dy, dx, d_initial, parts, length, channels, runs,
    x_sb, x_sl, x_sd, w_sd, w_sk, i_sb, i_sk, i_sd, r_sb, r_sl, g_sb, g_sl, g_sd, o_sb, o_sl,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_RESET: tl.constexpr,
    SILU: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, U: tl.constexpr, WIDTH: tl.constexpr,
    MASK_D: tl.constexpr, HAS_MORE: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs of a run, and the run's part of the taps' and the bias's.

    Step t gives its output's gradient g_t to the inputs of the steps t - m. So a run finishes the inputs of the
    steps that lie TAPS - 1 earlier, for which it first computes g of the last steps of the run before.
    `more_dy` (B, L, D, contiguous) is added to `dy`; with ADD, what is in `dx` already is added to.
    """
    REACH: tl.constexpr = TAPS - 1
    blocks = tl.cdiv(channels, WIDTH)
    pid = tl.program_id(0)
    d = ((pid % blocks) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    run = pid // blocks % runs
    b = (pid // (blocks * runs)).to(tl.int64)
    live = d < channels if MASK_D else tl.full((WIDTH,), 1, tl.int1)
    taps = load_taps(weight, d, live, w_sd, w_sk, TAPS)
    start = tl.load(bias + d, mask=live, other=0.0).to(tl.float32) if HAS_BIAS else tl.zeros((WIDTH,), tl.float32)
    first = run.to(tl.int64) * STEPS
    past = ()
    for m in tl.static_range(REACH):
        value = input(
            x, initial, b, first - U - 1 - m, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd, TAPS, HAS_INITIAL,
            REVERSE,
        )  # fmt: skip
        past = past + (value,)
    if HAS_RESET:
        shut = tl.zeros((), tl.int1)
        kept = ()
        for m in tl.static_range(REACH):
            kept = kept + (tl.where(shut, 0.0, past[m]),)
            shut = shut | wall(reset, b, first - U - 1 - m, length, r_sb, r_sl, REVERSE)
        past = kept
    # What the inputs 1 to REACH steps back have been given, and whether no wall has closed them since.
    owed = ()
    open = ()
    sums = (tl.zeros((WIDTH,), tl.float32),)
    for _ in tl.static_range(REACH):
        owed = owed + (tl.zeros((WIDTH,), tl.float32),)
        open = open + (tl.full((), 1, tl.int1),)
        sums = sums + (tl.zeros((WIDTH,), tl.float32),)
    grad_bias = tl.zeros((WIDTH,), tl.float32)
    # The first group of U >= REACH steps belongs to the run before.
    for i in range(first - U, tl.minimum(first + STEPS, length + REACH), U):
        values = ()
        grads = ()
        befores = ()
        for j in tl.static_range(U):
            t = i + j
            token = length - 1 - t if REVERSE else t
            if ADD:  # with the other loads: a store between them holds them up
                done_at = dx + b * o_sb + (token + REACH if REVERSE else token - REACH) * o_sl + d
                mask = live & (t >= first) & (t >= REACH) & (t - REACH < length)
                befores = befores + (tl.load(done_at, mask=mask, other=0.0).to(tl.float32),)
            real = live & (t >= 0) & (t < length)
            value = input(
                x, initial, b, t, d, live, length, x_sb, x_sl, x_sd, i_sb, i_sk, i_sd, TAPS, HAS_INITIAL, REVERSE
            )
            grad = tl.load(dy + b * g_sb + token * g_sl + d * g_sd, mask=real, other=0.0).to(tl.float32)
            if HAS_MORE:
                grad += tl.load(more_dy + (b * length + token) * channels + d, mask=real, other=0.0).to(tl.float32)
            values = values + (value,)
            grads = grads + (grad,)
        for j in tl.static_range(U):
            t = i + j
            value = values[j]
            grad = grads[j]
            if HAS_RESET:
                closed = wall(reset, b, t, length, r_sb, r_sl, REVERSE)
                past = behind(closed, past, TAPS)
                still = ()
                for m in tl.static_range(REACH):
                    still = still + (open[m] & (closed == 0),)
                open = still
            if SILU:
                total = convolve(value, past, taps, start, TAPS)
                gate = 1.0 / (1.0 + tl.exp2(-total * LOG2E))
                # Beyond either end there is no output, whatever the inputs there are.
                grad = tl.where((t >= 0) & (t < length), grad * gate * (1.0 + total * (1.0 - gate)), 0.0)
            counted = tl.where(t >= first, grad, 0.0)
            grad_bias += counted
            grown = (sums[0] + counted * value,)
            given = ()
            for m in tl.static_range(REACH):
                grown = grown + (sums[m + 1] + counted * past[m],)
                gift = taps[m + 1] * grad
                if HAS_RESET:
                    gift = tl.where(open[m], gift, 0.0)
                given = given + (owed[m] + gift,)
            sums = grown
            now = taps[0] * grad
            done = given[REACH - 1] if REACH else now
            owed = remember(now, given, TAPS)
            if HAS_RESET:
                open = remember(tl.full((), 1, tl.int1), open, TAPS)
            past = remember(value, past, TAPS)
            k = t - REACH
            token = length - 1 - k if REVERSE else k
            mask = live & (t >= first) & (k >= 0) & (k < length)
            if ADD:
                done += befores[j]
            tl.store(dx + b * o_sb + token * o_sl + d, done, mask=mask)
            if HAS_INITIAL:
                place = -1 - k if REVERSE else REACH + k
                halo = live & (t >= first) & (k < 0)
                tl.store(d_initial + (b * REACH + place) * channels + d, done, mask=halo)
    at = parts + (b * runs + run) * (TAPS + 1) * channels + d
    for m in tl.static_range(TAPS):
        tl.store(at + (TAPS - 1 - m) * channels, sums[m], mask=live)
    tl.store(at + TAPS * channels, grad_bias, mask=live)
