"""One door to the short depthwise causal convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from genomamba.kernels.causal_conv1d.reference import causal_conv1d_reference
from genomamba.kernels.impl import Impl, resolve_impl


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise causal convolution over time, optionally through SiLU.

    ``y_t = bias + sum_k weight[:, k] x_{t - (K - 1) + k}``, so that the last tap meets the token itself;
    with ``reverse`` the taps reach forward, ``x_{t + (K - 1) - k}``, as if flipped in time before and after.
    Differentiable in every tensor but ``reset``; deterministic. Sums are kept in fp32 (fp64 for fp64 inputs).

    Args:
        x: input, (B, L, D).
        weight: taps, (D, K), K ≥ 1.
        bias: (D,).
        silu: whether to return ``SiLU(y)``.
        initial_state: the K - 1 inputs that border the segment, in time order, (B, K - 1, D): those before
            it, or after it with ``reverse``. Zeros when absent.
        reset: bool (B, L), True at the first token of each packed sequence. It is a wall between that
            token and the one before it, whichever way the taps reach; no input, NaN or inf crosses it.
        reverse: reach towards later tokens.
        return_final_state: also return the K - 1 inputs that the next segment needs as its
            ``initial_state`` (the previous one in time with ``reverse``), zero behind a wall, in x's dtype.
            Any split of L, into segments shorter than K - 1 too, gives what the whole gives.
        impl: ``auto`` chooses by device; any other choice is obeyed or refused, never replaced.

    Returns:
        y (B, L, D) in x's dtype, or (y, final_state).

    Raises:
        KernelUnavailableError: the chosen implementation cannot run here.
        ValueError: shapes, devices or dtypes that do not fit together.
    """
    _check_inputs(x, weight, bias, initial_state, reset)
    chosen = resolve_impl(impl, x.device, given=(x, weight))
    args = (x, weight, bias, silu, initial_state, reset, reverse)
    if chosen == "triton":
        from genomamba.kernels.causal_conv1d.triton import causal_conv1d_triton

        y, final_state = causal_conv1d_triton(*args)
    elif chosen == "cpu":
        from genomamba.kernels.causal_conv1d.cpu import causal_conv1d_cpu

        y, final_state = causal_conv1d_cpu(*args)
    else:
        y, final_state = causal_conv1d_reference(*args)
    return (y, final_state) if return_final_state else y


def _check_inputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, reset: Tensor | None
) -> None:
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[1] < 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}; expected (B, L, D) and (D, K) with K >= 1"
        )
    batch, length, channels = x.shape
    taps = weight.shape[1]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "weight": (weight, (channels, taps)),
        "bias": (bias, (channels,)),
        "initial_state": (initial_state, (batch, taps - 1, channels)),
        "reset": (reset, (batch, length)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; x and weight ask for {shape}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}; x is on {x.device}")
    if reset is not None and reset.dtype != torch.bool:
        raise ValueError(f"reset has dtype {reset.dtype}; it marks tokens and must be bool")
