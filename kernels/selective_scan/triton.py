"""The scan on a GPU as a pair of torch operators, forward and backward, with shapes for tracing.

Where nobody traces, the same two functions are called straight: torch takes longer to find an operator that is written
in Python than a GPU takes for the scan of short sequences.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError
from genomamba.kernels.launching import is_traced

if importlib.util.find_spec("triton") is None:
    raise KernelUnavailableError(
        "impl='triton': the package triton is not installed; `pip install triton` (Linux), or use impl='cpu'"
    )

import triton

from genomamba.kernels.selective_scan.triton_backward import Gradients, scan_backward
from genomamba.kernels.selective_scan.triton_launch import Inputs, output_shapes, scan_forward

MAX_STATES = 256


def selective_scan_triton(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.selective_scan`; state and sums in fp32.

    Raises:
        KernelUnavailableError: no GPU, fp64 inputs, or more than 256 states.
    """
    check_runnable(u, A.shape[1], dt, A, B, C, z, initial_state)
    given = Inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse)
    if is_traced(given) or u.numel() == 0:
        return _scan(*given)[:2]
    if not torch.is_grad_enabled():
        return scan_forward(given, keep=False)[:2]
    return _EagerScan.apply(*given)


def check_runnable(u: Tensor, states: int, *others: Tensor | None) -> None:
    """Whether the kernels can take these.

    Raises:
        KernelUnavailableError: they cannot.
    """
    if u.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise KernelUnavailableError(
            f"impl='triton': the tensors are on {u.device} and the kernel needs an NVIDIA GPU; "
            "move them to 'cuda', or use impl='auto'"
        )
    for tensor in (u, *others):
        if tensor is not None and tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise KernelUnavailableError(
                f"impl='triton': inputs are {tensor.dtype} and the kernel computes in fp32; use impl='reference'"
            )
    if states > MAX_STATES:
        raise KernelUnavailableError(
            f"impl='triton': {states} states and the kernel holds up to {MAX_STATES}; use impl='reference'"
        )


@torch.library.custom_op("genomamba::selective_scan", mutates_args=())
def _scan(
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
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state that enters each chunk, (B, chunks, padded N, D)."""
    return scan_forward(Inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse))


@_scan.register_fake
def _scan_shapes(
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
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return output_shapes(Inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse))


@torch.library.custom_op("genomamba::selective_scan_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    d_final: Tensor | None,
    entering: Tensor,
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
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C, D, z, dt_bias and the initial state; empty where there is no such input."""
    out = _gradient_shapes(
        dy, d_final, entering, u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse
    )
    du, ddt, dA, dB, dC, dD, dz, d_bias, d_initial = out
    if u.numel() == 0:
        for gradient in out:
            gradient.zero_()
        if initial_state is not None and d_final is not None:
            d_initial.copy_(d_final)
        return out
    given = Inputs(u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse)
    sums = scan_backward(dy, d_final, entering, given, Gradients(du, ddt, dB, dC, None if z is None else dz))
    dA.copy_(sums.dA)
    for target, found, wanted in (
        (dD, sums.dD, D),
        (d_bias, sums.d_bias, dt_bias),
        (d_initial, sums.d_initial, initial_state),
    ):
        if wanted is not None:
            target.copy_(found)
    return out


@_scan_backward.register_fake
def _gradient_shapes(
    dy: Tensor,
    d_final: Tensor | None,
    entering: Tensor,
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
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor | None) -> Tensor:
        return u.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)

    return (like(u), like(dt), like(A), like(B), like(C), like(D), like(z), like(dt_bias), like(initial_state))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.dt_softplus, ctx.reverse = inputs
    entering = output[2]
    ctx.mark_non_differentiable(entering)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(entering, *tensors)


def _backward(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    entering, *tensors = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(tensors[0])
    gradients = _scan_backward(dy, d_final, entering, *tensors, ctx.dt_softplus, ctx.reverse)
    # In the order of the inputs; reset, dt_softplus and reverse have none.
    present = [None if t is None else g for t, g in zip(tensors[:9], gradients, strict=True)]
    return (*present, None, None, None)


def _no_second_backward(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError(
        "selective_scan: impl='triton' has no second derivative; use impl='reference' for double backward"
    )


_scan.register_autograd(_backward, setup_context=_save_for_backward)
_scan_backward.register_autograd(_no_second_backward)


class _EagerScan(torch.autograd.Function):
    """What the operators do, without them. A backward that is to be differentiated itself is theirs to refuse."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, final_state, entering = scan_forward(Inputs(*inputs), keep=any(ctx.needs_input_grad))
        *tensors, ctx.dt_softplus, ctx.reverse = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(entering, *tensors)
        return y, final_state

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() or is_traced((dy, d_final)):
            return _backward(ctx, dy, d_final, None)
        entering, *tensors = ctx.saved_tensors
        given = Inputs(*tensors, ctx.dt_softplus, ctx.reverse)
        if dy is None:
            dy = torch.zeros_like(given.u)
        du, ddt, dB, dC = (each.new_empty(each.shape) for each in (given.u, given.dt, given.B, given.C))
        dz = None if given.z is None else given.z.new_empty(given.z.shape)
        sums = scan_backward(dy, d_final, entering, given, Gradients(du, ddt, dB, dC, dz))
        dA, dD, d_bias, d_initial = (
            None if each is None else found.to(each.dtype)
            for each, found in zip((given.A, given.D, given.dt_bias, given.initial_state), sums, strict=True)
        )
        return du, ddt, dA, dB, dC, dD, dz, d_bias, d_initial, None, None, None
