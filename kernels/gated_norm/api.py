"""One door to Mamba-2's gated norm."""

from __future__ import annotations

from torch import Tensor

from genomamba.kernels.gated_norm.reference import gated_norm_reference
from genomamba.kernels.impl import Impl, resolve_impl


def gated_norm(
    y: Tensor, z: Tensor, weight: Tensor, *, groups: int, eps: float, norm_before_gate: bool, impl: Impl = "auto"
) -> Tensor:
    """RMSNorm within each group of channels, of a gated stream or with the gate after it.

    ``norm(y · SiLU(z)) · weight`` (Dao & Gu 2024, section 7.1), or ``norm(y) · weight · SiLU(z)``; the norm as in
    `rms_norm`. Differentiable in every tensor; deterministic; sums in fp32 (fp64 for fp64 inputs).

    Args:
        y: (B, L, D).
        z: what the gate is made of, (B, L, D).
        weight: (D,).
        groups: the D channels are normed in that many equal parts.
        eps: added to the mean square.
        norm_before_gate: which of the two.
        impl: as in `selective_scan`; ``cpu`` and ``reference`` are the same torch operations.

    Returns:
        (B, L, D) in y's dtype.

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
        ValueError: shapes that do not fit together.
    """
    channels = y.shape[-1]
    if y.dim() != 3 or z.shape != y.shape or tuple(weight.shape) != (channels,) or groups < 1 or channels % groups:
        raise ValueError(
            f"y has shape {tuple(y.shape)}, z {tuple(z.shape)} and weight {tuple(weight.shape)}; "
            f"expected (B, L, D), the same and (D,), groups={groups} dividing D"
        )
    if resolve_impl(impl, y.device, given=(y, z, weight)) == "triton":
        from genomamba.kernels.gated_norm.triton import gated_norm_triton

        return gated_norm_triton(y, z, weight, groups, eps, norm_before_gate)
    return gated_norm_reference(y, z, weight, groups, eps, norm_before_gate)
