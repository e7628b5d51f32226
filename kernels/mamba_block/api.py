"""One door to a whole Mamba block: residual addition, norm, projections, convolution, scan, gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.mamba_block.reference import mamba_block_reference


class Direction(NamedTuple):
    """What reads the projected input in one direction; D channels, N states, K taps, rank R."""

    conv_weight: Tensor  # (D, K)
    conv_bias: Tensor | None  # (D,)
    x_proj: Tensor  # (R + 2 N, D), without bias
    dt_proj: Tensor  # (D, R)
    dt_bias: Tensor  # (D,)
    A_log: Tensor  # (D, N); A = -exp(A_log)
    D: Tensor  # (D,)


def mamba_block(
    x: Tensor,
    residual: Tensor | None,
    norm_weight: Tensor,
    in_proj: Tensor,
    in_bias: Tensor | None,
    directions: Sequence[Direction],
    reverse: Sequence[bool],
    out_proj: Tensor,
    out_bias: Tensor | None,
    *,
    eps: float,
    reset: Tensor | None = None,
    slab_bytes: int = 2 << 30,
    depth: int = 8,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """One block on the stream ``residual + x`` (Gu & Dao 2023, figure 3, after a residual addition and RMSNorm).

    With r = residual + x: ``u, z = in_proj(RMSNorm(r))``; each direction convolves u, passes it through SiLU,
    scans it and gates it with z; the sum of the directions goes through ``out_proj``. Under autocast the
    projections, and what is kept in memory between them, have its dtype; norm, scan and stream are fp32.

    The Triton implementation keeps, for the backward, the stream and the states that enter the scan's chunks,
    4 and N / 64 bytes per token and channel of r and u, and more only where memory is plenty (README.md);
    what it does not keep it computes again. Differentiable in every tensor but ``reset``; deterministic.

    Args:
        x: what the block before returned, (B, L, d_model).
        residual: the stream before ``x`` is added, (B, L, d_model), fp32; None where it begins with ``x``.
        norm_weight: (d_model,).
        in_proj: (2 D, d_model).
        in_bias: (2 D,).
        directions: one or more readers of the same projected input.
        reverse: for each, whether it reads from the last token to the first.
        out_proj: (d_model, D).
        out_bias: (d_model,).
        eps: of the norm.
        reset: bool (B, L), True at the first token of each packed sequence.
        slab_bytes: how large the projected input may be at a time in the Triton implementation, which needs about
            five times as much beside what it keeps; a longer one is worked through in slabs of L.
        depth: blocks of the model, which share what may be kept beyond the least in the Triton implementation.
        impl: as in `selective_scan`; ``cpu`` and ``reference`` are made of the other operators.

    Returns:
        what is to be added to the stream, (B, L, d_model), and the stream r, fp32.

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
    """
    chosen = resolve_impl(impl, x.device, given=(x, norm_weight, in_proj, out_proj))
    args = (x, residual, norm_weight, in_proj, in_bias, directions, reverse, out_proj, out_bias, eps, reset)
    if chosen == "triton":
        from genomamba.kernels.mamba_block.triton import mamba_block_triton

        return mamba_block_triton(*args, slab_bytes, depth)
    return mamba_block_reference(*args, chosen)
