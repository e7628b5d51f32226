"""One door to Mamba-2's scan, and the choice of who computes it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.impl import resolve_impl
from genomamba.kernels.ssd.chunked import CHUNK, ssd_chunked
from genomamba.kernels.ssd.reference import ssd_reference

SsdImpl = Literal["auto", "reference", "chunked", "triton"]
_16_BITS = (torch.bfloat16, torch.float16)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    chunk: int = CHUNK,
    tf32: bool = False,
    impl: SsdImpl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan of Mamba-2 (Dao & Gu 2024, section 6): one decay per head.

    ``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_tᵀ``, ``y_t = h_t C_t + D x_t``.
    Differentiable in every tensor but ``reset``; deterministic; linear in L.

    Args:
        x: input, (B, L, H, P): H heads of P channels.
        dt: step size before bias, softplus and limits, (B, L, H).
        A: continuous-time decay, (H,), negative for a stable model. fp32.
        B: input projection, (B, L, G, N); G divides H, and heads i H/G … (i + 1) H/G - 1 share group i.
        C: output projection, (B, L, G, N).
        D: skip weight, (H,) or (H, P). fp32.
        dt_bias: added to ``dt``, (H,). fp32.
        dt_softplus: whether to pass ``dt + dt_bias`` through softplus.
        dt_limit: the step size is clamped to these, last of all.
        initial_state: state before the first token (after the last one with ``reverse``), (B, H, P, N).
        reset: bool (B, L), True at the first token of each packed sequence: a wall between that token and
            the one before it, whichever way the scan runs. Inputs must be finite.
        reverse: scan from the last token to the first.
        return_final_state: also return the state that leaves the segment, (B, H, P, N), fp32 (fp64 for fp64
            inputs). Given to the next segment as its ``initial_state``, any split gives what the whole gives.
        chunk: tokens per chunk of the matrix form; rounding apart it changes nothing.
        tf32: compute as the original's kernels do on a GPU: operands of products lose 13 of their 23 bits of
            fraction. With the original's chunk (256) its outputs are met to 1e-5, which exact products, being
            better, miss by some 1e-4. ``chunked`` only, and of no effect on 16-bit inputs.
        impl: ``chunked`` works through matrix products in fp32 and runs on every device, ``triton`` through a GPU's
            tensor cores (operands in the widest dtype of x, B and C, sums, decays and states in fp32; heads of up to
            8,192 channels times states, twice that in 16 bits),
            ``reference`` step by step. ``auto`` is ``triton`` on an NVIDIA GPU where it can be, but
            for fp64 and TF32, and ``chunked`` elsewhere; any other choice is obeyed or refused.

    Returns:
        y (B, L, H, P) in x's dtype, or (y, final_state).

    Raises:
        KernelUnavailableError: ``triton`` cannot run here.
        ValueError: shapes, devices or dtypes that do not fit together, or an unknown ``impl``.
    """
    _check_inputs(x, dt, A, B, C, D, dt_bias, initial_state, reset)
    if impl not in get_args(SsdImpl):
        raise ValueError(f"impl={impl!r}: expected one of {', '.join(get_args(SsdImpl))}")
    wide = torch.float64 if any(t.dtype == torch.float64 for t in (x, dt, A, B, C)) else torch.float32
    step = dt.to(wide)
    if dt_bias is not None:
        step = step + dt_bias.to(wide)
    if dt_softplus:
        step = F.softplus(step)
    if dt_limit != (0.0, float("inf")):
        step = step.clamp(*dt_limit)
    state = None if initial_state is None else initial_state.to(wide)
    operand = torch.promote_types(torch.promote_types(x.dtype, B.dtype), C.dtype)
    tf32 = tf32 and operand not in _16_BITS
    if impl == "auto":
        impl = "triton" if wide == torch.float32 and not tf32 and _has_kernels(x, B, operand) else "chunked"
    if tf32 and (impl != "chunked" or wide != torch.float32):
        raise ValueError("tf32 is of fp32 and the chunked implementation alone")
    if D is not None:
        D = (D if D.dim() == 2 else D[:, None]).to(wide)
    if impl == "triton":
        from genomamba.kernels.ssd.triton import ssd_triton

        y, final_state = ssd_triton(
            x.to(operand),
            step,
            A.to(wide),
            B.to(operand),
            C.to(operand),
            None if D is None else D.expand(x.shape[2:]).contiguous(),
            state,
            reset,
            reverse,
        )
    else:
        args = (x.to(wide), step, A.to(wide), B.to(wide), C.to(wide), state, reset, reverse)
        with torch.autocast(x.device.type, enabled=False):  # which would carry the state in 16 bits
            y, final_state = ssd_reference(*args) if impl == "reference" else ssd_chunked(*args, chunk=chunk, tf32=tf32)
        if D is not None:
            y = y + D * x.to(wide)
    return (y.to(x.dtype), final_state) if return_final_state else y.to(x.dtype)


def _has_kernels(x: Tensor, B: Tensor, operand: torch.dtype) -> bool:
    if x.device.type != "cuda" or resolve_impl("auto", x.device) != "triton":
        return False
    from genomamba.kernels.ssd.triton import fits

    return fits(x.shape[3], B.shape[3], operand)


def _check_inputs(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
) -> None:
    if x.dim() != 4 or B.dim() != 4 or B.shape[2] < 1 or x.shape[2] % B.shape[2]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and B {tuple(B.shape)}; expected (B, L, H, P) and (B, L, G, N), G dividing H"
        )
    batch, length, heads, width = x.shape
    states = B.shape[3]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "dt": (dt, (batch, length, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, length, B.shape[2], states)),
        "C": (C, (batch, length, B.shape[2], states)),
        "D": (D, (heads,) if D is None or D.dim() == 1 else (heads, width)),
        "dt_bias": (dt_bias, (heads,)),
        "initial_state": (initial_state, (batch, heads, width, states)),
        "reset": (reset, (batch, length)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; x and B ask for {shape}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}; x is on {x.device}")
    if reset is not None and reset.dtype != torch.bool:
        raise ValueError(f"reset has dtype {reset.dtype}; it marks tokens and must be bool")
