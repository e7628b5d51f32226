"""The functions that the compiled kernels are made of, against the C library in fp64."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from genomamba.kernels import cpu_math


@numba.njit(fastmath=cpu_math.FASTMATH, error_model="numpy")
def _all(x: NDArray, out: NDArray) -> None:
    for i in range(x.size):
        out[0, i] = cpu_math.exp2(x[i])
        out[1, i] = cpu_math.exp(x[i])
        out[2, i] = cpu_math.sigmoid(x[i])
        out[3, i] = cpu_math.softplus(x[i])
        out[4, i] = cpu_math.softplus_slope(x[i])


def found(x: NDArray) -> NDArray:
    out = np.empty((5, x.size), x.dtype)
    _all(x, out)
    return out


def expected(x: NDArray) -> NDArray:
    wide = torch.from_numpy(x).double()
    slope = torch.where(wide > 20, 1.0, wide.sigmoid())
    return torch.stack([wide.exp2(), wide.exp(), wide.sigmoid(), F.softplus(wide), slope]).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_within_four_units_in_the_last_place(dtype: type) -> None:
    x = np.concatenate([np.linspace(-80, 80, 100_001), np.linspace(19.99, 20.01, 1001), np.linspace(-1e-3, 1e-3, 99)])
    values, reference = found(x.astype(dtype)), expected(x.astype(dtype))
    # 2^x in fp64 goes through e^x, whose argument is rounded.
    units = np.array([2, 2, 4, 4, 4]) if dtype == np.float32 else np.array([99, 2, 4, 4, 4])
    assert (np.abs(values / reference - 1).max(axis=1) <= units * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(dtype: type) -> None:
    x = np.array([-np.inf, -2000, 2000, np.inf, np.nan, 0], dtype)
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(found(x)[:2], [[0, 0, inf, inf, nan, 1]] * 2)
    np.testing.assert_array_equal(found(x)[2], [0, 0, 1, 1, nan, 0.5])
    np.testing.assert_allclose(found(x)[3], [0, 0, 2000, inf, nan, np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(found(x)[4], [0, 0, 1, 1, nan, 0.5])


def test_the_smallest_powers_vanish_smoothly() -> None:
    x = np.arange(-126, -160, -0.25, dtype=np.float32)
    powers = found(x)[0]
    assert (powers >= 0).all()
    assert (np.abs(powers - np.exp2(x.astype(float))) <= np.finfo(np.float32).tiny).all()
