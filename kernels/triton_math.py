"""Functions of fp32 numbers that several operators' Triton kernels compute, so that all round alike."""

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
