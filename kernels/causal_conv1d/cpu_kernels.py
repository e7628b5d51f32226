"""The compiled loops of the short convolution on a CPU.

A task is one batch row and one span of steps. It walks LANES channels at a time, CHUNK steps at a time.
The tap that looks ``lag`` steps back is row ``taps - 1 - lag`` of the weights. Rows of inputs begin
``taps - 1`` steps before the chunk; before step 0 they hold the initial state, or zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genomamba.kernels.cpu_math import compiled, sigmoid
from genomamba.kernels.cpu_rows import (
    LANES,
    load_columns,
    load_tokens,
    load_vector,
    rows,
    store_tokens,
    wall,
)

CHUNK = 64


@compiled
def _reach(reset: NDArray, b: int, step: int, length: int, reverse: bool, taps: int) -> int:
    """How many steps back from ``step`` an input may be taken: up to a wall, at most taps - 1."""
    for lag in range(taps - 1):
        if step - lag >= 0 and wall(reset, b, step - lag, length, reverse):
            return lag
    return taps - 1


@compiled
def _load_inputs(
    xx: NDArray,
    count: int,
    width: int,
    x: NDArray,
    stride: NDArray,
    initial: NDArray,
    length: int,
    reverse: bool,
    b: int,
    step: int,
    d: int,
) -> None:
    """``count`` rows of inputs from ``step`` on, which may be negative."""
    before = max(0, -step)
    for j in range(min(before, count)):
        xx[j] = 0
        if initial.size:
            # Step -1 borders the segment: the last row of the state, or the first one in reverse.
            row = -1 - step - j if reverse else initial.shape[1] + step + j
            for i in range(width):
                xx[j, i] = initial[b, row, d + i]
    if count > before:
        first = step + before
        t, sign = (length - 1 - first, -1) if reverse else (first, 1)
        load_tokens(xx[before:], count - before, width, x, stride, sign, b, t, d)


@compiled
def _convolve(out: NDArray, xx: NDArray, ww: NDArray, bias: NDArray, reaches: NDArray, count: int) -> None:
    """Row j of ``out`` from rows j to j + taps - 1 of ``xx``."""
    last = ww.shape[0] - 1
    for j in range(count):
        for i in range(LANES):
            out[j, i] = bias[i]
        for lag in range(reaches[j] + 1):
            tap, source = ww[last - lag], xx[j + last - lag]
            for i in range(LANES):
                out[j, i] += tap[i] * source[i]


@compiled
def forward(
    first: int,
    end: int,
    span: int,
    silu: bool,
    reverse: bool,
    x: NDArray,
    strides: NDArray,
    weight: NDArray,
    bias: NDArray,
    initial: NDArray,
    reset: NDArray,
    y: NDArray,
) -> None:
    """Tasks ``first`` to ``end`` of y (B, L, D); ``span`` is the steps of a task, a multiple of CHUNK."""
    length, channels, taps = y.shape[1], y.shape[2], weight.shape[1]
    spans = (length + span - 1) // span
    sign = -1 if reverse else 1
    xx, out = rows(CHUNK + taps - 1, y.dtype), rows(CHUNK, y.dtype)
    channel = rows(taps + 1, y.dtype)
    ww, bb = channel[:taps], channel[taps]
    reaches = np.empty(CHUNK, np.int64)
    for task in range(first, end):
        b, start = task // spans, task % spans * span
        for step in range(start, min(start + span, length), CHUNK):
            count = min(CHUNK, length - step)
            t = length - 1 - step if reverse else step
            for j in range(count):
                reaches[j] = _reach(reset, b, step + j, length, reverse, taps)
            for d in range(0, channels, LANES):
                width = min(LANES, channels - d)
                load_columns(ww, weight, d, width)
                load_vector(bb, bias, d, width)
                _load_inputs(
                    xx, count + taps - 1, width, x, strides[0], initial, length, reverse, b, step - taps + 1, d
                )
                _convolve(out, xx, ww, bb, reaches, count)
                if silu:
                    for j in range(count):
                        for i in range(LANES):
                            out[j, i] *= sigmoid(out[j, i])
                store_tokens(y, out, count, width, sign, b, t, d)


@compiled
def backward(
    first: int,
    end: int,
    span: int,
    silu: bool,
    reverse: bool,
    x: NDArray,
    gy: NDArray,
    strides: NDArray,
    weight: NDArray,
    bias: NDArray,
    initial: NDArray,
    reset: NDArray,
    g_x: NDArray,
    g_weight: NDArray,
    g_bias: NDArray,
    g_initial: NDArray,
) -> None:
    """Tasks ``first`` to ``end`` of the gradients of x (B, L, D) and of the initial state (B, taps - 1, D).

    Those of the weights (tasks, D, taps) and of the bias (tasks, D) are fp64, a part from each task, added to.
    """
    real, length, channels, taps = g_x.dtype, g_x.shape[1], g_x.shape[2], weight.shape[1]
    spans = (length + span - 1) // span
    sign = -1 if reverse else 1
    halo = taps - 1
    # An input reaches up to ``halo`` steps ahead, whose pre-activations are computed again.
    xx, gg = rows(CHUNK + 2 * halo, real), rows(CHUNK + halo, real)
    out, gx = rows(CHUNK + halo, real), rows(CHUNK + 2 * halo, real)
    channel = rows(2 * taps + 2, real)
    ww, bb, gw, gb = channel[:taps], channel[taps], channel[taps + 1 : 2 * taps + 1], channel[2 * taps + 1]
    reaches = np.empty(CHUNK + halo, np.int64)
    for task in range(first, end):
        b, start = task // spans, task % spans * span
        for step in range(start, min(start + span, length), CHUNK):
            count = min(CHUNK, length - step)
            ahead = min(halo, length - step - count)
            t = length - 1 - step if reverse else step
            for j in range(count + ahead):
                reaches[j] = _reach(reset, b, step + j, length, reverse, taps)
            for d in range(0, channels, LANES):
                width = min(LANES, channels - d)
                load_columns(ww, weight, d, width)
                load_vector(bb, bias, d, width)
                load_tokens(gg, count + ahead, width, gy, strides[1], sign, b, t, d)
                _load_inputs(
                    xx, count + ahead + halo, width, x, strides[0], initial, length, reverse, b, step - halo, d
                )
                if silu:
                    _convolve(out, xx, ww, bb, reaches, count + ahead)
                    for j in range(count + ahead):
                        for i in range(LANES):
                            gate = sigmoid(out[j, i])
                            value = out[j, i] * gate
                            gg[j, i] *= gate + value - value * gate

                # Row j of gx belongs to step - halo + j. Rows before the chunk, and after it, are another
                # chunk's to finish, but for those before step 0: the initial state's.
                gx[:] = 0
                gw[:] = 0
                gb[:] = 0
                for j in range(count + ahead):
                    for lag in range(reaches[j] + 1):
                        tap, target = ww[halo - lag], gx[j + halo - lag]
                        for i in range(LANES):
                            target[i] += tap[i] * gg[j, i]
                for j in range(count):
                    for i in range(LANES):
                        gb[i] += gg[j, i]
                    for lag in range(reaches[j] + 1):
                        source, target = xx[j + halo - lag], gw[halo - lag]
                        for i in range(LANES):
                            target[i] += source[i] * gg[j, i]
                store_tokens(g_x, gx[halo:], count, width, sign, b, t, d)
                if step == 0 and initial.size:
                    for j in range(halo):
                        row = halo - 1 - j if reverse else j
                        for i in range(width):
                            g_initial[b, row, d + i] = gx[j, i]
                for i in range(width):
                    g_bias[task, d + i] += gb[i]
                    for k in range(taps):
                        g_weight[task, d + i, k] += gw[k, i]
