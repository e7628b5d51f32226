"""What the compiled CPU kernels share: numba's settings and the functions that no vector unit has.

Every function takes and gives a scalar of one type, fp32 or fp64. The fp32 forms are branch-free
polynomials that the compiler turns into vector code; fp64 is for checking, and calls the C library.
NaN stays NaN and infinities arrive where the functions' limits are.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numba
import numpy as np
from numba.extending import overload

logger = logging.getLogger(__name__)

# Fusing a multiplication into an addition and ignoring the sign of zero are the only liberties: anything
# that assumes finite numbers would let a NaN vanish, and reassociation would undo the rounding below.
FASTMATH = {"contract", "nsz"}
FASTMATH_SUMS = {"contract", "nsz", "reassoc"}  # for loops that add up across the lanes
LOG2E = math.log2(math.e)
LN2 = math.log(2.0)

_SHARED = (Path(__file__), Path(__file__).with_name("cpu_rows.py"))
_DIGEST = zlib.crc32(b"".join(path.read_bytes() for path in _SHARED))


def compiled(function: Callable[..., Any], fastmath: set[str] = FASTMATH) -> Any:
    """``numba.njit`` without the GIL, cached on disk under a key that covers the shared helpers too.

    numba stamps a cached kernel with the kernel's own file, so that an edit here or in `cpu_rows` would go
    unseen. The key also holds the closure's cells, and the checksum of both files travels in one.
    """
    code = function.__code__
    covered = FunctionType(
        code.replace(co_freevars=(*code.co_freevars, "helpers_digest")),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        (*(function.__closure__ or ()), CellType(_DIGEST)),
    )
    settings: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **settings)(covered)
    except RuntimeError:  # no folder to cache in can be written
        _warn_of_compiling()
        return numba.njit(**settings)(covered)


@cache
def _warn_of_compiling() -> None:
    logger.warning("the CPU kernels are compiled again in each process: set NUMBA_CACHE_DIR to a folder")


def compiled_sums(function: Callable[..., Any]) -> Any:
    """`compiled`, with leave to add in any order, which vectorised sums across the lanes need."""
    return compiled(function, FASTMATH_SUMS)


def exp2(x: float) -> float:
    """2^x. In fp32 within 1.5 units in the last place; below 2^-126.5 zero, from 2^127.5 on infinite."""
    raise NotImplementedError("compiled code only")


def exp(x: float) -> float:
    """e^x, with the accuracy and range of `exp2` also far from zero."""
    raise NotImplementedError("compiled code only")


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), accurate in both tails."""
    raise NotImplementedError("compiled code only")


def softplus(x: float) -> float:
    """log(1 + e^x) by log1p, and x itself above 20, as torch has it."""
    raise NotImplementedError("compiled code only")


def softplus_slope(x: float) -> float:
    """The derivative of `softplus`: sigmoid(x), and 1 above 20."""
    raise NotImplementedError("compiled code only")


_f = np.float32
# 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum.
_MAGIC = _f(12582912.0)
_LOG2E, _LN2_HIGH, _LN2_LOW = _f(LOG2E), _f(0.693359375), _f(LN2 - 0.693359375)
_LOWEST, _HIGHEST = _f(-127.0), _f(128.0)
_LOWEST_E, _HIGHEST_E = _f(-127.0 * LN2), _f(128.0 * LN2)
# 2^f on [-1/2, 1/2], fitted for the relative error.
_E1, _E2, _E3 = _f(6.931472028550421e-1), _f(2.402264791363012e-1), _f(5.550332471162809e-2)
_E4, _E5, _E6 = _f(9.618437357674640e-3), _f(1.339887440266574e-3), _f(1.535336188319500e-4)
# log1p(e) = 2 atanh(s) with s = e / (2 + e) <= 1/3: the odd series up to s^15.
_L3, _L5, _L7, _L9, _L11, _L13, _L15 = (_f(1 / k) for k in (3, 5, 7, 9, 11, 13, 15))
_ZERO, _ONE, _TWO, _LINEAR = _f(0), _f(1), _f(2), _f(20)


@numba.njit(fastmath=FASTMATH)
def _power(magic: float, f: float) -> float:
    """2^k 2^f, where the integer k stands in the low bits of ``magic``: its bits become the exponent."""
    scale = np.int32((np.float32(magic).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    p = (((((_E6 * f + _E5) * f + _E4) * f + _E3) * f + _E2) * f + _E1) * f + _ONE
    return p * scale


def _exp2_single(x: float) -> float:
    x = _LOWEST if x < _LOWEST else x  # written so that NaN stays
    x = _HIGHEST if x > _HIGHEST else x
    magic = x + _MAGIC
    return _power(magic, x - (magic - _MAGIC))


def _exp_single(x: float) -> float:
    x = _LOWEST_E if x < _LOWEST_E else x
    x = _HIGHEST_E if x > _HIGHEST_E else x
    magic = x * _LOG2E + _MAGIC
    k = magic - _MAGIC
    return _power(magic, ((x - k * _LN2_HIGH) - k * _LN2_LOW) * _LOG2E)


def _sigmoid_single(x: float) -> float:
    e = exp(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


def _softplus_single(x: float) -> float:
    e = exp(-abs(x))
    s = e / (_TWO + e)
    q = s * s
    series = ((((((_L15 * q + _L13) * q + _L11) * q + _L9) * q + _L7) * q + _L5) * q + _L3) * q + _ONE
    value = (x if x > _ZERO else _ZERO) + _TWO * s * series
    return x if x > _LINEAR else value


def _softplus_slope_single(x: float) -> float:
    slope = sigmoid(x)
    return _ONE if x > _LINEAR else slope


def _exp2_double(x: float) -> float:
    return math.exp(x * LN2)


def _exp_double(x: float) -> float:
    return math.exp(x)


def _sigmoid_double(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _softplus_double(x: float) -> float:
    return x if x > 20.0 else math.log1p(math.exp(x))


def _softplus_slope_double(x: float) -> float:
    return 1.0 if x > 20.0 else sigmoid(x)


def _offer(stub: Callable[..., Any], single: Callable[..., Any], double: Callable[..., Any]) -> None:
    def choose(x: Any) -> Callable[..., Any]:
        return single if x == numba.types.float32 else double

    overload(stub, jit_options={"fastmath": FASTMATH}, strict=False)(choose)


_offer(exp2, _exp2_single, _exp2_double)
_offer(exp, _exp_single, _exp_double)
_offer(sigmoid, _sigmoid_single, _sigmoid_double)
_offer(softplus, _softplus_single, _softplus_double)
_offer(softplus_slope, _softplus_slope_single, _softplus_slope_double)
