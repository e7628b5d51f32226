"""One door to RMSNorm with its residual addition."""

from __future__ import annotations

from torch import Tensor

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.rms_norm.reference import rms_norm_reference


def rms_norm(
    x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None, impl: Impl = "auto"
) -> tuple[Tensor, Tensor]:
    """Add ``x`` to the residual stream, then normalise by the root mean square over channels.

    ``r = residual + x``, ``y = r / sqrt(mean(r²) + eps) · weight`` (Zhang & Sennrich 2019, equation 4).
    Differentiable in every tensor; deterministic.

    Args:
        x: what the last block gives, (..., D).
        weight: (D,).
        eps: added to the mean square.
        residual: the stream before ``x`` is added, (..., D), fp32; None where the stream begins with ``x``.
        impl: as in `selective_scan`; ``cpu`` and ``reference`` are the same torch operations.

    Returns:
        The normalised stream in x's dtype, and the stream itself in fp32 (fp64 for fp64 inputs), both (..., D).

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
        ValueError: shapes that do not fit together.
    """
    if tuple(weight.shape) != tuple(x.shape[-1:]):
        raise ValueError(f"weight has shape {tuple(weight.shape)}; x asks for {tuple(x.shape[-1:])}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual has shape {tuple(residual.shape)}; x asks for {tuple(x.shape)}")
    if resolve_impl(impl, x.device, given=(x, weight, residual)) == "triton":
        from genomamba.kernels.rms_norm.triton import rms_norm_triton

        return rms_norm_triton(x, weight, residual, eps)
    return rms_norm_reference(x, weight, residual, eps)
