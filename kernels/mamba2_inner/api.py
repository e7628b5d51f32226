"""One door to what a Mamba-2 mixer does between its projections: convolution, SSD, gated norm."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.mamba2_inner.reference import mamba2_inner_reference


class Inner(NamedTuple):
    """What it is made of; D = H P scanned channels, G groups of N states, E = D + 2 G N convolved channels."""

    conv_weight: Tensor  # (E, K)
    conv_bias: Tensor | None  # (E,)
    dt_bias: Tensor  # (H,)
    A_log: Tensor  # (H,); A = -exp(A_log)
    skip: Tensor  # (H,) or (D,)
    norm_weight: Tensor | None  # (D,); None: gated, not normed
    headdim: int  # P
    groups: int  # G
    states: int  # N
    eps: float
    norm_before_gate: bool
    dt_limit: tuple[float, float]
    chunk: int  # as in `ssd`
    tf32: bool  # as in `ssd`


def mamba2_inner(
    p: Tensor,
    inner: Inner,
    *,
    conv_state: Tensor | None = None,
    scan_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """z, (x, B, C) and dt of every token to the gated, normed output of the scan (Dao & Gu 2024, figure 6).

    Differentiable in every tensor but ``reset``; deterministic. The Triton implementation keeps nothing for the
    backward but its inputs, and writes the gradient of p in one piece.

    Args:
        p: (B, L, D + E + H): z, x, B, C and dt side by side.
        inner: parameters and options.
        conv_state: the K - 1 inputs of the convolution before the segment, (B, K - 1, E).
        scan_state: the state before it, (B, H, P, N).
        reset: as in `ssd`.
        reverse: as in `ssd`.
        impl: as in `selective_scan`.

    Returns:
        y (B, L, D) in p's dtype, and both states behind the segment.

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
    """
    chosen = resolve_impl(impl, p.device, given=(p,))
    if chosen == "triton" and p.numel() and not torch.compiler.is_compiling():
        from genomamba.kernels.mamba2_inner.triton import fits, mamba2_inner_triton

        if fits(p, inner):
            return mamba2_inner_triton(p, inner, conv_state, scan_state, reset, reverse)
    return mamba2_inner_reference(p, inner, conv_state, scan_state, reset, reverse, impl)
