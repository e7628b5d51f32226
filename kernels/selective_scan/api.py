"""One door to the selective scan, and the choice of who computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.selective_scan.reference import selective_scan_reference


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_softplus: bool = False,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective state-space recurrence of Mamba (Gu & Dao 2023, equations 1–2).

    ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t``, ``y_t = (C_t h_t + D u_t) SiLU(z_t)``.
    Differentiable in every tensor but ``reset``; deterministic; linear in L.

    Args:
        u: input, (B, L, D).
        dt: step size before bias and softplus, (B, L, D).
        A: continuous-time decay, (D, N), negative for a stable model. fp32.
        B: input projection, (B, L, N).
        C: output projection, (B, L, N).
        D: skip weight, (D,). fp32.
        z: gate, (B, L, D); SiLU is applied here.
        dt_bias: added to ``dt``, (D,). fp32.
        dt_softplus: whether to pass ``dt + dt_bias`` through softplus.
        initial_state: state before the first token (after the last one with ``reverse``), (B, D, N).
        reset: bool (B, L), True at the first token of each packed sequence. It is a wall between that
            token and the one before it, whichever way the scan runs; no state, NaN or inf crosses it.
        reverse: scan from the last token to the first.
        return_final_state: also return the state that leaves the segment, (B, D, N), fp32 (fp64 for fp64
            inputs). Given to the next segment as its ``initial_state``, any split gives what the whole gives.
        impl: ``auto`` chooses by device; any other choice is obeyed or refused, never replaced.

    Returns:
        y (B, L, D) in u's dtype, or (y, final_state).

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
        ValueError: shapes, devices or dtypes that do not fit together.
    """
    _check_inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset)
    chosen = resolve_impl(impl, u.device, given=(u, dt, A, B, C, z, initial_state))
    args = (u, dt, A, B, C, D, z, dt_bias, dt_softplus, initial_state, reset, reverse)
    if chosen == "triton":
        from genomamba.kernels.selective_scan.triton import selective_scan_triton

        y, final_state = selective_scan_triton(*args)
    elif chosen == "cpu":
        from genomamba.kernels.selective_scan.cpu import selective_scan_cpu

        y, final_state = selective_scan_cpu(*args)
    else:
        y, final_state = selective_scan_reference(*args)
    return (y, final_state) if return_final_state else y


def _check_inputs(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"u has shape {tuple(u.shape)} and A {tuple(A.shape)}; expected (B, L, D) and (D, N)")
    batch, length, channels = u.shape
    states = A.shape[1]
    of_tokens, of_states = (batch, length, channels), (batch, length, states)
    for name, tensor, shape in (
        ("dt", dt, of_tokens),
        ("A", A, (channels, states)),
        ("B", B, of_states),
        ("C", C, of_states),
        ("D", D, (channels,)),
        ("z", z, of_tokens),
        ("dt_bias", dt_bias, (channels,)),
        ("initial_state", initial_state, (batch, channels, states)),
        ("reset", reset, (batch, length)),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; u and A ask for {shape}")
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device}; u is on {u.device}")
    if reset is not None and reset.dtype != torch.bool:
        raise ValueError(f"reset has dtype {reset.dtype}; it marks tokens and must be bool")
