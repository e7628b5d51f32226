"""The compiled loops of the CPU scan. README.md derives the formulas and explains the layout.

A task is one batch row and one block of channels. It walks its channels LANES at a time, which are the
lanes of the vector unit, and time CHUNK steps at a time, in the direction of the scan. Arrays of tokens
come flat, their batch and time strides in the rows of ``strides``; their channels lie side by side. An
absent tensor is an array of size 0.

A task's working set is a few arrays of rows of LANES, padded with zeros, which add nothing to any sum:
``token[QUANTITY, j]`` at step j of the chunk, ``state[QUANTITY, n]``, and for the backward the states and
decays of a whole chunk. Few arrays rather than one for each quantity, so that their addresses stay in
registers; one plane for each quantity, so that a loop is seen to write where it does not read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genomamba.kernels.cpu_math import LN2, compiled, compiled_sums, exp2, sigmoid, softplus, softplus_slope
from genomamba.kernels.cpu_rows import (
    LANES,
    load_columns,
    load_tokens,
    load_vector,
    rows,
    store_columns,
    store_tokens,
    wall,
)

CHUNK = 32

U, DT, Z, B_, C_, GY = range(6)  # rows of `strides`
# Planes of `token`: u, step size, their product, C h, z, softplus', and the gradients of C h, of the
# step size and of the product.
_U, _S, _DU, _OUT, _Z, _SLOPE, _GY, _GS, _GDU = range(9)
_A2, _H, _G, _GA = 0, 1, 1, 2  # of `state`: A log2(e); the state, or its gradient; the gradient of A
_B, _C, _GB, _GC = range(4)  # of `projection`: B, C and their gradients, rows of N
_NOWHERE = CHUNK + 1  # the row of a trail that stays zero: what is behind a wall


@compiled
def _discretise(token: NDArray, count: int, bias: NDArray, dt_softplus: bool) -> None:
    """The raw dt becomes the step size, and beside it its product with u."""
    for j in range(count):
        for i in range(LANES):
            token[_S, j, i] += bias[i]
    if dt_softplus:
        for j in range(count):
            for i in range(LANES):
                token[_S, j, i] = softplus(token[_S, j, i])
    for j in range(count):
        for i in range(LANES):
            token[_DU, j, i] = token[_S, j, i] * token[_U, j, i]


@compiled
def forward(
    first: int,
    end: int,
    block: int,
    dt_softplus: bool,
    reverse: bool,
    u: NDArray,
    dt: NDArray,
    z: NDArray,
    B: NDArray,
    C: NDArray,
    strides: NDArray,
    A2: NDArray,
    D: NDArray,
    dt_bias: NDArray,
    initial: NDArray,
    reset: NDArray,
    y: NDArray,
    final: NDArray,
    kept: NDArray,
) -> None:
    """Tasks ``first`` to ``end`` of the scan: y (B, L, D) and the final state (B, D, N).

    ``A2`` is A log2(e), (D, N). ``kept`` (B, D / LANES, L / CHUNK, N, LANES) gets the state before each
    chunk; with size 0 nothing is kept. ``block`` is the channels of a task, a multiple of LANES.
    """
    length, channels, states = y.shape[1], y.shape[2], A2.shape[1]
    blocks = (channels + block - 1) // block
    sign = -1 if reverse else 1
    token = rows(5 * (CHUNK + 1), y.dtype).reshape(5, CHUNK + 1, LANES)
    state = rows(2 * (states + 1), y.dtype).reshape(2, states + 1, LANES)
    channel = rows(2, y.dtype)
    skip, bias = channel[0], channel[1]
    projection = np.zeros((2, CHUNK, states), y.dtype)
    for task in range(first, end):
        b, start = task // blocks, task % blocks * block
        for d in range(start, min(start + block, channels), LANES):
            width = min(LANES, channels - d)
            load_vector(skip, D, d, width)
            load_vector(bias, dt_bias, d, width)
            load_columns(state[_A2], A2, d, width)
            if initial.size:
                load_columns(state[_H], initial[b], d, width)
            else:
                state[_H] = 0
            for step in range(0, length, CHUNK):
                if kept.size:
                    before = kept[b, d // LANES, step // CHUNK]
                    for n in range(states):
                        for i in range(LANES):
                            before[n, i] = state[_H, n, i]
                count = min(CHUNK, length - step)
                t = length - 1 - step if reverse else step
                load_tokens(projection[_B], count, states, B, strides[B_], sign, b, t, 0)
                load_tokens(projection[_C], count, states, C, strides[C_], sign, b, t, 0)
                load_tokens(token[_U], count, width, u, strides[U], sign, b, t, d)
                load_tokens(token[_S], count, width, dt, strides[DT], sign, b, t, d)
                _discretise(token, count, bias, dt_softplus)
                for j in range(count):
                    if wall(reset, b, step + j, length, reverse):
                        state[_H] = 0
                    for i in range(LANES):
                        token[_OUT, j, i] = 0
                    for n in range(states):
                        bn, cn = projection[_B, j, n], projection[_C, j, n]
                        for i in range(LANES):
                            h = exp2(token[_S, j, i] * state[_A2, n, i]) * state[_H, n, i] + token[_DU, j, i] * bn
                            state[_H, n, i] = h
                            token[_OUT, j, i] += cn * h
                if D.size:
                    for j in range(count):
                        for i in range(LANES):
                            token[_OUT, j, i] += skip[i] * token[_U, j, i]
                if z.size:
                    load_tokens(token[_Z], count, width, z, strides[Z], sign, b, t, d)
                    for j in range(count):
                        for i in range(LANES):
                            token[_OUT, j, i] *= token[_Z, j, i] * sigmoid(token[_Z, j, i])
                store_tokens(y, token[_OUT], count, width, sign, b, t, d)
            if wall(reset, b, length, length, reverse):
                state[_H] = 0
            store_columns(final[b], state[_H], d, width)


@compiled
def _rebuild(
    trail: NDArray, decays: NDArray, before: NDArray, token: NDArray, state: NDArray, projection: NDArray, count: int
) -> None:
    """Every state of a chunk from the one before it, and the readout C h.

    Step j starts from ``trail[before[j]]``; its decay goes to ``decays[j]``, what it ends with to ``trail[j + 1]``.
    """
    for j in range(count):
        for i in range(LANES):
            token[_OUT, j, i] = 0
        for n in range(decays.shape[1]):
            bn, cn = projection[_B, j, n], projection[_C, j, n]
            last, here, decay = trail[before[j], n], trail[j + 1, n], decays[j, n]
            for i in range(LANES):
                a = exp2(token[_S, j, i] * state[_A2, n, i])
                h = a * last[i] + token[_DU, j, i] * bn
                decay[i] = a
                here[i] = h
                token[_OUT, j, i] += cn * h


@compiled_sums
def _retrace(
    trail: NDArray, decays: NDArray, before: NDArray, token: NDArray, state: NDArray, projection: NDArray, count: int
) -> None:
    """The adjoint of a chunk, last step first, with the gradient of the state that leaves a step in ``state``.

    Adds to the gradient of A. Overwrites those of B, C, dt u, and of dt through the decay (without ln 2).
    """
    zero = token.dtype.type(0)
    for j in range(count - 1, -1, -1):
        for i in range(LANES):
            token[_GS, j, i] = 0
            token[_GDU, j, i] = 0
        for n in range(decays.shape[1]):
            bn, cn = projection[_B, j, n], projection[_C, j, n]
            sum_b, sum_c = zero, zero
            last, here, decay = trail[before[j], n], trail[j + 1, n], decays[j, n]
            for i in range(LANES):
                g = state[_G, n, i] + token[_GY, j, i] * cn
                back = g * decay[i]
                # a h_{t-1} times its gradient; never from h_t - dt u B, which cancels.
                q = back * last[i]
                state[_G, n, i] = back
                state[_GA, n, i] += token[_S, j, i] * q
                token[_GS, j, i] += state[_A2, n, i] * q
                token[_GDU, j, i] += bn * g
                sum_b += token[_DU, j, i] * g
                sum_c += token[_GY, j, i] * here[i]
            projection[_GB, j, n] = sum_b
            projection[_GC, j, n] = sum_c
        if before[j] == _NOWHERE:
            state[_G] = 0


@compiled
def backward(
    first: int,
    end: int,
    block: int,
    dt_softplus: bool,
    reverse: bool,
    u: NDArray,
    dt: NDArray,
    z: NDArray,
    B: NDArray,
    C: NDArray,
    gy: NDArray,
    strides: NDArray,
    A2: NDArray,
    D: NDArray,
    dt_bias: NDArray,
    reset: NDArray,
    kept: NDArray,
    g_final: NDArray,
    g_u: NDArray,
    g_dt: NDArray,
    g_z: NDArray,
    g_B: NDArray,
    g_C: NDArray,
    g_A: NDArray,
    g_D: NDArray,
    g_bias: NDArray,
    g_initial: NDArray,
) -> None:
    """Tasks ``first`` to ``end`` of every gradient.

    Those of u, dt and z are (B, L, D); those of B and C (blocks, B, L, N), a part from each block, added to;
    those of A (B, D, N), D and dt_bias (B, D) in fp64, a part from each batch row; that of the initial
    state (B, D, N).
    """
    real, length, channels, states = g_u.dtype, g_u.shape[1], g_u.shape[2], A2.shape[1]
    blocks = (channels + block - 1) // block
    sign = -1 if reverse else 1
    ln2 = real.type(LN2)
    token = rows(9 * (CHUNK + 1), real).reshape(9, CHUNK + 1, LANES)
    state = rows(3 * (states + 1), real).reshape(3, states + 1, LANES)
    trail = rows((CHUNK + 2) * states, real).reshape(CHUNK + 2, states, LANES)
    decays = rows(CHUNK * states, real).reshape(CHUNK, states, LANES)
    channel = rows(4, real)
    skip, bias, g_skip, g_raw = channel[0], channel[1], channel[2], channel[3]
    projection = np.zeros((4, CHUNK, states), real)
    before = np.zeros(CHUNK, np.int64)
    sums = np.zeros((states + 2, LANES))  # over time, in fp64: the gradients of A, D and dt_bias
    for task in range(first, end):
        b, start = task // blocks, task % blocks * block
        part_b, part_c = g_B[task % blocks, b], g_C[task % blocks, b]
        for d in range(start, min(start + block, channels), LANES):
            width = min(LANES, channels - d)
            load_vector(skip, D, d, width)
            load_vector(bias, dt_bias, d, width)
            load_columns(state[_A2], A2, d, width)
            load_columns(state[_G], g_final[b], d, width)
            sums[:] = 0
            if wall(reset, b, length, length, reverse):
                state[_G] = 0
            for step in range((length - 1) // CHUNK * CHUNK, -1, -CHUNK):
                count = min(CHUNK, length - step)
                t = length - 1 - step if reverse else step
                load_tokens(projection[_B], count, states, B, strides[B_], sign, b, t, 0)
                load_tokens(projection[_C], count, states, C, strides[C_], sign, b, t, 0)
                load_tokens(token[_U], count, width, u, strides[U], sign, b, t, d)
                load_tokens(token[_S], count, width, dt, strides[DT], sign, b, t, d)
                load_tokens(token[_GY], count, width, gy, strides[GY], sign, b, t, d)
                if dt_softplus:
                    for j in range(count):
                        for i in range(LANES):
                            token[_SLOPE, j, i] = softplus_slope(token[_S, j, i] + bias[i])
                _discretise(token, count, bias, dt_softplus)
                for j in range(count):
                    before[j] = _NOWHERE if wall(reset, b, step + j, length, reverse) else j
                start_state = kept[b, d // LANES, step // CHUNK]
                for n in range(states):
                    for i in range(LANES):
                        trail[0, n, i] = start_state[n, i]
                _rebuild(trail, decays, before, token, state, projection, count)
                if z.size:
                    load_tokens(token[_Z], count, width, z, strides[Z], sign, b, t, d)
                    if D.size:
                        for j in range(count):
                            for i in range(LANES):
                                token[_OUT, j, i] += skip[i] * token[_U, j, i]
                    for j in range(count):
                        for i in range(LANES):
                            gate = sigmoid(token[_Z, j, i])
                            silu = token[_Z, j, i] * gate
                            token[_Z, j, i] = token[_GY, j, i] * token[_OUT, j, i] * (gate + silu - silu * gate)
                            token[_GY, j, i] *= silu
                    store_tokens(g_z, token[_Z], count, width, sign, b, t, d)

                state[_GA] = 0
                _retrace(trail, decays, before, token, state, projection, count)

                for j in range(count):
                    for i in range(LANES):
                        token[_GS, j, i] = ln2 * token[_GS, j, i] + token[_U, j, i] * token[_GDU, j, i]
                        token[_GDU, j, i] *= token[_S, j, i]
                if dt_softplus:
                    for j in range(count):
                        for i in range(LANES):
                            token[_GS, j, i] *= token[_SLOPE, j, i]
                g_skip[:] = 0
                if D.size:
                    for j in range(count):
                        for i in range(LANES):
                            token[_GDU, j, i] += skip[i] * token[_GY, j, i]
                            g_skip[i] += token[_U, j, i] * token[_GY, j, i]
                g_raw[:] = 0
                for j in range(count):
                    for i in range(LANES):
                        g_raw[i] += token[_GS, j, i]
                store_tokens(g_u, token[_GDU], count, width, sign, b, t, d)
                store_tokens(g_dt, token[_GS], count, width, sign, b, t, d)
                for j in range(count):
                    for n in range(states):
                        part_b[t + sign * j, n] += projection[_GB, j, n]
                        part_c[t + sign * j, n] += projection[_GC, j, n]
                for i in range(LANES):
                    sums[states, i] += g_skip[i]
                    sums[states + 1, i] += g_raw[i]
                for n in range(states):
                    for i in range(LANES):
                        sums[n, i] += state[_GA, n, i]
            store_columns(g_A[b], sums, d, width)
            for i in range(width):
                g_D[b, d + i] = sums[states, i]
                g_bias[b, d + i] = sums[states + 1, i]
            store_columns(g_initial[b], state[_G], d, width)
