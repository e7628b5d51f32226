"""Mamba-2's scan on a GPU: chunk states, carry, outputs; the same again backward, then one kernel of gradients.

Deterministic: every sum has one order. Nothing but the inputs is kept for the backward pass; it computes the states
between chunks again, N P / T numbers of fp32 per token and head, which live no longer than it does.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError

if importlib.util.find_spec("triton") is None:
    raise KernelUnavailableError(
        "impl='triton': the package triton is not installed; `pip install triton` (Linux), or use impl='chunked'"
    )

import triton

from genomamba.kernels.ssd import triton_kernels

CHUNK = 64
_ROWS = 6  # of the table of decays
_LARGEST = {torch.float32: 64 * 128}  # state of a head that shared memory has room for; 128 * 128 in 16 bits
_UNROLLED, _BLOCK = 16, 256  # of the carry: chunks loaded at once, numbers of a program


def ssd_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.ssd`; dt is the step size itself, D (H, P). x, B and C share a dtype, the others are fp32.

    Products take operands of x's dtype (fp32 as three TF32 products, some 2⁻²¹) and sum in fp32.

    Raises:
        KernelUnavailableError: no GPU, fp64 inputs, or a state that is too large (see `fits`).
    """
    check_device(x)
    if x.dtype == torch.float64:
        raise KernelUnavailableError("impl='triton': the kernel sums in fp32; use impl='chunked' for fp64")
    if not fits(x.shape[3], B.shape[3], x.dtype):
        raise KernelUnavailableError(
            f"impl='triton': a head's state of {x.shape[3]} x {B.shape[3]} in {x.dtype} does not fit; "
            "use impl='chunked'"
        )
    y, final = _ssd(x, dt, A, B, C, D, initial_state, reset, reverse)
    if reverse and reset is not None and reset.shape[1]:
        final = torch.where(reset[:, 0, None, None, None], final.new_zeros(()), final)
    return y, final


def check_device(x: Tensor) -> None:
    """Raises KernelUnavailableError where there is no GPU."""
    if x.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise KernelUnavailableError(
            f"impl='triton': the tensors are on {x.device} and the kernel needs an NVIDIA GPU; "
            "move them to 'cuda', or use impl='auto'"
        )


def fits(width: int, states: int, dtype: torch.dtype) -> bool:
    """Whether there are kernels for heads of so many channels and states."""
    P, N = _padded(width, states)
    size = P * N
    return size <= _LARGEST.get(dtype, 128 * 128)


def ssd_forward(
    x: Tensor,
    table: Tensor,
    through: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state that leaves, and the states before each chunk (B, chunks, H, P, N); L and B at least 1.

    Args:
        x: as in `api.ssd`, as are the others, with neighbouring channels side by side.
        table: what `decays` gives, as is ``through``.
    """
    batch, length, heads, width = x.shape
    states, chunks = B.shape[3], table.shape[1]
    y = x.new_empty(x.shape)
    final = table.new_empty((batch, heads, width, states))
    entering = table.new_empty((batch, chunks, heads, width, states))
    with torch.cuda.device_of(x):
        _chunk_states(x, table, B, entering, reverse, adjoint=False)
        _carry(entering, through, initial_state, final, backward=False)
        triton_kernels.output_kernel[(batch * chunks * heads,)](
            x, table, B, C, x if D is None else D, entering, y,
            length, chunks, heads, heads // B.shape[2], width, states,
            *x.stride()[:3], *B.stride()[:3], *C.stride()[:3],
            HAS_D=D is not None, HAS_RESET=reset is not None, **_options(width, states, reverse, x.dtype),
        )  # fmt: skip
    return y, final, entering


class Sums(NamedTuple):
    """Gradients of what all tokens share, fp32."""

    dA: Tensor  # (H,)
    dD: Tensor | None  # (H, P)
    d_initial: Tensor  # (B, H, P, N), given or not


def ssd_backward(
    dy: Tensor,
    d_final: Tensor | None,
    entering: Tensor,
    x: Tensor,
    table: Tensor,
    through: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    dx: Tensor,
    d_step: Tensor,
    dB: Tensor,
    dC: Tensor,
) -> Sums:
    """Writes gradients to where they are given: of x, of the step size (contiguous, fp32), of B and of C.

    ``dx``, ``dB`` and ``dC`` may lie in wider rows, the latter two at the same strides.
    """
    batch, length, heads, width = x.shape
    groups, states, chunks = *B.shape[2:], table.shape[1]
    options = {"HAS_RESET": reset is not None, **_options(width, states, reverse, x.dtype)}
    dA_parts = table.new_empty((batch * chunks, heads))
    dD_parts = table.new_empty((batch * chunks if D is not None else 0, heads, width))
    d_initial = table.new_empty((batch, heads, width, states))
    leaving = torch.empty_like(entering)
    with torch.cuda.device_of(x):
        _chunk_states(dy, table, C, leaving, reverse, adjoint=True)
        _carry(leaving, through, d_final, d_initial, backward=True)
        sizes = (length, chunks, heads, heads // groups, width, states)
        strides = (*x.stride()[:3], *B.stride()[:3], *C.stride()[:3], *dy.stride()[:3])
        triton_kernels.input_gradient_kernel[(batch * chunks * heads,)](
            x, table, A, B, C, x if D is None else D, entering, dy, leaving, through, dx, d_step, dA_parts, dD_parts,
            *sizes, *strides, *dx.stride()[:2], HAS_D=D is not None, **options,
        )  # fmt: skip
        triton_kernels.coupling_gradient_kernel[(batch * chunks * groups,)](
            x, table, B, C, entering, dy, leaving, dB, dC, *sizes, *strides, *dB.stride()[:2], **options
        )
    return Sums(dA_parts.sum(0), None if D is None else dD_parts.sum(0), d_initial)


@torch.library.custom_op("genomamba::ssd", mutates_args=())
def _ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    if not x.numel():
        y, final = _ssd_shapes(x, dt, A, B, C, D, initial_state, reset, reverse)
        return y, final.zero_() if initial_state is None else final.copy_(initial_state)
    x, dt, B, C = (_dense(t) for t in (x, dt, B, C))
    return ssd_forward(x, *decays(dt, A, reset, reverse), B, C, D, initial_state, reset, reverse)[:2]


@_ssd.register_fake
def _ssd_shapes(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    batch, _, heads, width = x.shape
    return x.new_empty(x.shape), dt.new_empty((batch, heads, width, B.shape[3]))


@torch.library.custom_op("genomamba::ssd_backward", mutates_args=())
def _ssd_backward(
    dy: Tensor,
    d_final: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D (empty without one) and the initial state (given or not)."""
    out = _gradient_shapes(dy, d_final, x, dt, A, B, C, D, initial_state, reset, reverse)
    dx, d_step, _, dB, dC, dD, d_initial = out
    if not x.numel():
        for gradient in out:
            gradient.zero_()
        if d_final is not None:
            d_initial.copy_(d_final)
        return out
    x, dt, B, C, dy = (_dense(t) for t in (x, dt, B, C, dy))
    table, through = decays(dt, A, reset, reverse)
    entering = entering_states(x, table, through, B, initial_state, reverse)
    sums = ssd_backward(
        dy, d_final, entering, x, table, through, A, B, C, D, reset, reverse, dx, d_step, dB, dC
    )  # fmt: skip
    return dx, d_step, sums.dA, dB, dC, dD if sums.dD is None else sums.dD, sums.d_initial


@_ssd_backward.register_fake
def _gradient_shapes(
    dy: Tensor,
    d_final: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, _, heads, width = x.shape
    return (
        x.new_empty(x.shape),
        dt.new_empty(dt.shape),
        A.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        dt.new_empty(0 if D is None else D.shape),
        dt.new_empty((batch, heads, width, B.shape[3])),
    )


def decays(dt: Tensor, A: Tensor, reset: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """What the kernels know of each chunk's steps, (B, chunks, H, _ROWS, T), and its whole decay, (B, chunks, H)."""
    batch, length, heads = dt.shape
    chunks = triton.cdiv(length, CHUNK)
    table, through = dt.new_empty((batch, chunks, heads, _ROWS, CHUNK)), dt.new_empty((batch, chunks, heads))
    with torch.cuda.device_of(dt):
        triton_kernels.decay_kernel[(batch * chunks * heads,)](
            dt, A, dt if reset is None else reset, table, through, length, chunks, heads, *dt.stride()[:2],
            *((0, 0) if reset is None else reset.stride()),
            T=CHUNK, ROWS=_ROWS, HAS_RESET=reset is not None, REVERSE=reverse, num_warps=1,
        )  # fmt: skip
    return table, through


def entering_states(
    x: Tensor, table: Tensor, through: Tensor, B: Tensor, initial_state: Tensor | None, reverse: bool
) -> Tensor:
    """The state before each chunk, (B, chunks, H, P, N)."""
    batch, _, heads, width = x.shape
    final = table.new_empty((batch, heads, width, B.shape[3]))
    entering = table.new_empty((batch, table.shape[1], heads, width, B.shape[3]))
    with torch.cuda.device_of(x):
        _chunk_states(x, table, B, entering, reverse, adjoint=False)
        _carry(entering, through, initial_state, final, backward=False)
    return entering


def _chunk_states(x: Tensor, table: Tensor, B: Tensor, out: Tensor, reverse: bool, adjoint: bool) -> None:
    """What each chunk gives to the state that leaves it or, with `adjoint`, to the gradient of the one that enters."""
    batch, length, heads, width = x.shape
    chunks = table.shape[1]
    triton_kernels.chunk_state_kernel[(batch * chunks * heads,)](
        x, table, B, out, length, chunks, heads, heads // B.shape[2], width, B.shape[3],
        *x.stride()[:3], *B.stride()[:3], ADJOINT=adjoint, **_options(width, B.shape[3], reverse, x.dtype),
    )  # fmt: skip


def _carry(own: Tensor, through: Tensor, initial: Tensor | None, final: Tensor, backward: bool) -> None:
    """Replaces what each chunk gives by what stood before it."""
    batch, chunks, heads, width, states = own.shape
    size = width * states
    triton_kernels.carry_kernel[(batch * heads, triton.cdiv(size, _BLOCK))](
        own, through, own if initial is None else initial.contiguous(), final, chunks, heads, size,
        HAS_INITIAL=initial is not None, BACKWARD=backward, U=_UNROLLED, BLOCK=_BLOCK, num_warps=2,
    )  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(tensors[0])
    gradients = _ssd_backward(dy, d_final, *tensors, ctx.reverse)
    return (*(None if t is None else g for t, g in zip(tensors[:7], gradients, strict=True)), None, None)


def _no_second_backward(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("ssd: impl='triton' has no second derivative; use impl='chunked' for double backward")


_ssd.register_autograd(_backward, setup_context=_save)
_ssd_backward.register_autograd(_no_second_backward)


def _dense(t: Tensor) -> Tensor:
    """With neighbouring channels side by side, as the kernels read them."""
    return t if t.stride(-1) == 1 else t.contiguous()


def _options(width: int, states: int, reverse: bool, dtype: torch.dtype) -> dict[str, Any]:
    P, N = _padded(width, states)
    return {
        "T": CHUNK,
        "ROWS": _ROWS,
        "P": P,
        "N": N,
        "REVERSE": reverse,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",  # the latter means nothing to 16 bits
        "num_warps": 4 if max(P, N) <= 64 else 8,
        "num_stages": 2 if max(P, N) <= 64 and dtype != torch.float32 else 1,
    }


def _padded(width: int, states: int) -> tuple[int, int]:
    return max(16, triton.next_power_of_2(width)), max(16, triton.next_power_of_2(states))
