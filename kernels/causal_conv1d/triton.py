"""The short causal convolution and its SiLU on a GPU: one pass forward, one backward, deterministic.

Steps are counted in scan order: step i is token i, or token L - 1 - i with `REVERSE`. So y_i is
bias + Σ_m w_{K-1-m} x_{i-m}, and steps before the first are the initial state. A wall before a step, a
``reset`` of the token on its later side, cuts what reaches across it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError

if importlib.util.find_spec("triton") is None:
    raise KernelUnavailableError(
        "impl='triton': the package triton is not installed; `pip install triton` (Linux), or use impl='cpu'"
    )

import triton

from genomamba.kernels.causal_conv1d import triton_kernels

_STEPS, _GROUP, _WIDTH = 128, 8, 64  # of one program: steps, those loaded together, channels


def causal_conv1d_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.causal_conv1d`; sums in fp32.

    Raises:
        KernelUnavailableError: no GPU, or fp64 inputs.
    """
    if x.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise KernelUnavailableError(
            f"impl='triton': the tensors are on {x.device} and the kernel needs an NVIDIA GPU; "
            "move them to 'cuda', or use impl='auto'"
        )
    if torch.float64 in (x.dtype, weight.dtype):
        raise KernelUnavailableError("impl='triton': the kernel computes in fp32; use impl='reference' for fp64")
    y = _conv(x, weight, bias, initial_state, reset, silu, reverse)
    return y, leaving_inputs(x, weight.shape[1] - 1, initial_state, reset, reverse)


def leaving_inputs(x: Tensor, halo: int, initial_state: Tensor | None, reset: Tensor | None, reverse: bool) -> Tensor:
    """The `halo` inputs at the open end, the initial state's where the segment is shorter; zero behind a wall."""
    batch, length, channels = x.shape
    short = max(0, halo - length)
    taken = halo - short
    before = x.new_zeros((batch, halo, channels)) if initial_state is None else initial_state.to(x.dtype)
    if reverse:
        inputs = torch.cat([x[:, :taken], before[:, :short]], 1)
    else:
        inputs = torch.cat([before[:, halo - short :], x[:, length - taken :]], 1)
    if reset is None or not halo:
        return inputs
    # A wall lies between an input and the open end: marks from token 0 up to the input, or after it.
    marks = reset[:, :taken] if reverse else reset[:, length - taken :]
    if reverse:
        walls = marks.cumsum(1)
        walls = torch.cat([walls, walls[:, -1:].expand(-1, short)], 1) if taken else walls.new_zeros((batch, halo))
    else:
        after = marks.flip(1).cumsum(1).flip(1)
        every = after[:, :1] if taken else after.new_zeros((batch, 1))
        walls = torch.cat([every.expand(-1, short), after - marks.long()], 1)
    return torch.where((walls > 0)[..., None], inputs.new_zeros(()), inputs)


def conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> Tensor:
    """y (B, L, D); shapes as in `api.causal_conv1d`."""
    batch, length, channels = x.shape
    y = x.new_empty(x.shape)
    if x.numel():
        grid = (triton.cdiv(channels, _WIDTH) * triton.cdiv(length, _STEPS) * batch,)
        with torch.cuda.device_of(x):
            triton_kernels.conv_kernel.launch(
                grid,
                (x, weight, *_or(x, bias, initial_state, reset), y),
                (length, channels, *x.stride(), *weight.stride(), *_strides(initial_state), *_strides(reset, 2)),
                **_flags(weight, bias, initial_state, reset, silu, reverse), num_warps=1,
            )  # fmt: skip
    return y


def conv_backward(
    dy: Tensor,
    more_dy: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
    dx: Tensor,
    d_initial: Tensor | None,
    *,
    add: bool = False,
) -> tuple[Tensor, Tensor]:
    """The gradient of the weight, (D, K), and of the bias, (D,), fp32; those of the inputs go where they are given.

    Args:
        dy: of the output, (B, L, D).
        more_dy: a second part of it, contiguous.
        x: and what follows, as in `api.causal_conv1d`.
        dx: (B, L, D) with neighbouring channels, to be written.
        d_initial: (B, K - 1, D), contiguous, where there is an initial state.
        add: add to what is in ``dx`` instead.
    """
    batch, length, channels = x.shape
    taps = weight.shape[1]
    # With an initial state, the steps before the first have gradients too.
    runs = triton.cdiv(length + taps - 1, _STEPS)
    parts = x.new_empty((batch * runs, taps + 1, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_kernels.conv_backward_kernel.launch(
            (triton.cdiv(channels, _WIDTH) * runs * batch,),
            (x, weight, *_or(x, bias, initial_state, reset), dy, *_or(x, more_dy), dx, *_or(x, d_initial), parts),
            (
                length, channels, runs,
                *x.stride(), *weight.stride(), *_strides(initial_state), *_strides(reset, 2), *dy.stride(),
                *dx.stride()[:2],
            ),
            HAS_MORE=more_dy is not None, ADD=add,
            **_flags(weight, bias, initial_state, reset, silu, reverse), num_warps=1,
        )  # fmt: skip
    sums = parts.sum(0)
    return sums[:taps].T, sums[taps]


@torch.library.custom_op("genomamba::causal_conv1d", mutates_args=())
def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> Tensor:
    return conv_forward(x, weight, bias, initial_state, reset, silu, reverse)


@_conv.register_fake
def _conv_shapes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("genomamba::causal_conv1d_backward", mutates_args=())
def _conv_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and the initial state; empty where there is no such input."""
    out = _gradient_shapes(dy, x, weight, bias, initial_state, reset, silu, reverse)
    dx, d_weight, d_bias, d_initial = out
    if not x.numel():
        for gradient in out:
            gradient.zero_()
        return out
    weight_sum, bias_sum = conv_backward(
        dy, None, x, weight, bias, initial_state, reset, silu, reverse, dx, None if initial_state is None else d_initial
    )
    d_weight.copy_(weight_sum)
    if bias is not None:
        d_bias.copy_(bias_sum)
    return out


@_conv_backward.register_fake
def _gradient_shapes(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor | None) -> Tensor:
        return x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)

    return like(x), like(weight), like(bias), like(initial_state)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = _conv_backward(dy, *tensors, ctx.silu, ctx.reverse)
    return (*(None if t is None else g for t, g in zip(tensors[:4], gradients, strict=True)), None, None, None)


def _no_second_backward(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("causal_conv1d: impl='triton' has no second derivative; use impl='reference'")


_conv.register_autograd(_backward, setup_context=_save)
_conv_backward.register_autograd(_no_second_backward)


def _or(other: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """A kernel needs some pointer where there is no tensor; a flag tells it not to read there."""
    return tuple(other if tensor is None else tensor for tensor in tensors)


def _strides(tensor: Tensor | None, dims: int = 3) -> tuple[int, ...]:
    return (0,) * dims if tensor is None else tensor.stride()


def _flags(
    weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, reset: Tensor | None, silu: bool, reverse: bool
) -> dict[str, Any]:
    return {
        "TAPS": weight.shape[1],
        "HAS_BIAS": bias is not None,
        "HAS_INITIAL": initial_state is not None,
        "HAS_RESET": reset is not None,
        "SILU": silu,
        "REVERSE": reverse,
        "STEPS": _STEPS,
        "U": max(_GROUP, triton.next_power_of_2(weight.shape[1] - 1)),
        "WIDTH": _WIDTH,
        "MASK_D": weight.shape[0] % _WIDTH != 0,
    }
