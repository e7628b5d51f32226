"""Rows of LANES channels: the working set of the compiled CPU kernels, and the way into and out of it.

Arrays of tokens come flat, with a batch and a time stride; their channels lie side by side. Kernels walk
them in steps, which count in the direction of the scan: step s is time s, or length - 1 - s in reverse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genomamba.kernels.cpu_math import compiled

LANES = 64  # a few vectors, so that their latencies overlap and what all lanes share is loaded once


@compiled
def rows(count: int, dtype: np.dtype) -> NDArray:
    """Zeros (count, LANES) that start on a cache line: vector loads across two lines take twice as long."""
    values = np.zeros((count + 1) * LANES, dtype)
    start = (-values.ctypes.data % 64) // values.itemsize
    return values[start : start + count * LANES].reshape(count, LANES)


@compiled
def wall(reset: NDArray, b: int, step: int, length: int, reverse: bool) -> bool:
    """Whether no state may pass from step - 1 to step; 0 and ``length`` are the segment's two ends."""
    if reset.size == 0:
        return False
    if reverse:
        return step > 0 and reset[b, length - step]
    return step < length and reset[b, step]


@compiled
def load_tokens(
    rows: NDArray, count: int, width: int, source: NDArray, stride: NDArray, sign: int, b: int, t: int, d: int
) -> None:
    """``rows[j]`` gets ``width`` channels from d on at time t + sign j, and zeros, for each j below ``count``."""
    for j in range(count):
        start = b * stride[0] + (t + sign * j) * stride[1] + d
        values = source[start : start + width]
        for i in range(width):
            rows[j, i] = values[i]
        for i in range(width, rows.shape[1]):
            rows[j, i] = 0


@compiled
def store_tokens(target: NDArray, rows: NDArray, count: int, width: int, sign: int, b: int, t: int, d: int) -> None:
    """The way back, into an array (B, L, D)."""
    for j in range(count):
        values = target[b, t + sign * j, d : d + width]
        for i in range(width):
            values[i] = rows[j, i]


@compiled
def load_columns(rows: NDArray, source: NDArray, d: int, width: int) -> None:
    """``rows[n]`` gets ``width`` channels from d on of ``source`` (D, N), and zeros."""
    for n in range(source.shape[1]):
        for i in range(width):
            rows[n, i] = source[d + i, n]
        for i in range(width, LANES):
            rows[n, i] = 0


@compiled
def store_columns(target: NDArray, rows: NDArray, d: int, width: int) -> None:
    for n in range(target.shape[1]):
        for i in range(width):
            target[d + i, n] = rows[n, i]


@compiled
def load_vector(row: NDArray, source: NDArray, d: int, width: int) -> None:
    row[:] = 0
    if source.size:
        for i in range(width):
            row[i] = source[d + i]
