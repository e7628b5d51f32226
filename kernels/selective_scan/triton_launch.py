"""The launches of a scan's forward on a GPU; triton_forward holds the kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from genomamba.kernels.selective_scan import triton_forward as forward_kernels
from genomamba.kernels.selective_scan.cut import (
    LANES,
    Plan,
    coupling_shape,
    entering_shape,
    fine_shape,
    lane_blocks,
    plan,
    walks_back,
)

_WIDTHS = 128  # kernels have multiples of so many channels compiled in


class Inputs(NamedTuple):
    """What a scan is given, as `api.selective_scan` names it."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_state: Tensor | None
    reset: Tensor | None
    dt_softplus: bool
    reverse: bool


def output_shapes(given: Inputs, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Unwritten: y unless given, the final state, and the state that enters each chunk, (B, chunks, padded N, D)."""
    batch, length, channels = given.u.shape
    cut = plan(batch, length, channels, given.A.shape[1])
    return (
        given.u.new_empty((batch, length, channels)) if y is None else y,
        given.u.new_empty((batch, channels, given.A.shape[1]), dtype=torch.float32),
        given.u.new_empty(entering_shape(cut, batch, channels), dtype=torch.float32),
    )


def scan_forward(
    given: Inputs, *, keep: bool = True, fine_bytes: int = 0, add_to: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state that enters each chunk, which the backward needs.

    With ``add_to``, contiguous and like y, that is y, with this scan's added.

    Without ``keep`` the last may be unwritten. Where rows and channels fill a large GPU in the backward too, and
    up to ``fine_bytes`` of memory, the last are the states before every fourth step instead, in five
    dimensions: the backward then need not rebuild them.
    """
    u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse = given
    batch, length, channels = u.shape
    states = A.shape[1]
    cut = plan(batch, length, channels, states)
    y, final, entering = output_shapes(given, add_to)
    fine = keep and u.numel() > 0 and walks_back(cut, batch, channels, fine_bytes)
    if u.numel() == 0:
        final.copy_(initial_state) if initial_state is not None else final.zero_()
        return y, final, entering
    coupling = coupling_rows(B, C, cut.padded)
    walls, chunk_walls = wall_marks(reset, reverse, cut)
    blocks = lane_blocks(channels)
    flags = launch_flags(length, channels, LANES, cut.forward_unroll, dt_bias, dt_softplus, walls, reverse)
    walls, chunk_walls = present(walls, u), present(chunk_walls, u)
    width, z_row = known_strides(z, u, dt)
    lean = width > 0 and reset is None
    # Fine states are in the order of the backward's tiles.
    tile, most = (cut.backward_tile, cut.fine_registers) if fine else (cut.forward_tile, cut.output_registers)
    with torch.cuda.device_of(u):
        if cut.n_spans == 1:
            if initial_state is not None:
                entering[:, 0].zero_()
                entering[:, 0, :states].copy_(initial_state.transpose(1, 2))
        else:
            sums = u.new_empty((batch, cut.n_chunks, channels), dtype=torch.float32)
            forward_kernels.state_kernel.launch(
                (blocks * cut.n_chunks * batch, cut.padded // cut.forward_tile),
                (u, dt, A, coupling, present(dt_bias, u), walls, entering, sums),
                (length, channels, states, cut.chunk, cut.n_chunks, *u.stride(), *dt.stride(), *A.stride()),
                NP=cut.padded, N=cut.forward_tile, WIDTH=width, U=cut.forward_unroll, STAGES=cut.stages,
                maxnreg=cut.state_registers if lean else None, num_warps=1, **flags,
            )  # fmt: skip
            forward_kernels.carry_kernel.launch(
                (blocks, cut.padded, batch),
                (entering, sums, A, chunk_walls, present(initial_state, u)),
                (channels, states, cut.n_chunks, *A.stride(), *strides_of(initial_state)),
                NP=cut.padded, BD=LANES, U=16,
                HAS_INITIAL=initial_state is not None, HAS_WALLS=reset is not None, STAGES=cut.stages, num_warps=1,
            )  # fmt: skip
        kept = u.new_empty(fine_shape(cut, batch, channels), dtype=torch.float32) if fine else entering
        sum_y = u
        if cut.padded > tile:
            sum_y = u.new_empty(u.shape, dtype=torch.float32)
        for n0 in range(0, cut.padded, tile):
            forward_kernels.output_kernel.launch(
                (blocks * cut.n_spans * batch,),
                (
                    u, dt, A, coupling, present(D, u), present(z, u), present(dt_bias, u), walls, entering, kept,
                    sum_y, y, final,
                ),
                (
                    length, channels, states, cut.chunk, cut.n_chunks, cut.span, cut.n_spans, n0,
                    *u.stride(), *dt.stride(), *A.stride(), *strides_of(z),
                ),
                NP=cut.padded, N=tile, WIDTH=width, Z_ROW=z_row,
                U=cut.forward_unroll, HAS_SKIP=D is not None, HAS_GATE=z is not None,
                FIRST=n0 == 0, LAST=n0 + tile == cut.padded,
                KEEP=keep and not fine and cut.n_spans < cut.n_chunks, FINE=fine,
                FROM_ZERO=cut.n_spans == 1 and initial_state is None, ADD=add_to is not None,
                STAGES=cut.stages, maxnreg=most if lean else None, num_warps=1, **flags,
            )  # fmt: skip
    if reset is not None and reverse:
        final.masked_fill_(reset[:, 0, None, None], 0.0)
    return y, final, kept


def present(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A kernel needs some pointer where there is no tensor; a flag tells it not to read there."""
    return other if tensor is None else tensor


def strides_of(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 1) if tensor is None else tensor.stride()


def known_strides(z: Tensor | None, *others: Tensor) -> tuple[int, int]:
    """The step from token to token that kernels may have compiled in, and how many of it z has; (0, 1) for none.

    For widths that models have, 128 channels or a multiple. With others each would compile anew, for little.
    """
    channels = others[0].shape[2]
    z_row = 1 if z is None else z.stride(1) // channels
    known = all(tensor.stride()[1:] == (channels, 1) for tensor in others)
    known &= z is None or z.stride()[1:] == (z_row * channels, 1)
    return (channels, z_row) if known and channels % _WIDTHS == 0 else (0, 1)


def launch_flags(
    length: int,
    channels: int,
    width: int,
    unroll: int,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    walls: Tensor | None,
    reverse: bool,
) -> dict[str, bool]:
    return {
        "HAS_BIAS": dt_bias is not None,
        "SOFTPLUS": dt_softplus,
        "HAS_WALLS": walls is not None,
        "REVERSE": reverse,
        "MASK_L": length % unroll != 0,
        "MASK_D": channels % width != 0,
    }


def coupling_rows(B: Tensor, C: Tensor, padded: int, lanes_of: int = 0) -> Tensor:
    """B and C side by side, fp32 (B, L, 2, padded N); in lane order with ``lanes_of`` states to a tile."""
    batch, length, states = B.shape
    out = B.new_empty(coupling_shape(batch, length, padded, lanes=lanes_of > 0), dtype=torch.float32)
    rows = max(1, 512 // padded)
    with torch.cuda.device_of(B):
        forward_kernels.coupling_kernel.launch(
            (triton.cdiv(batch * length, rows),),
            (B, C, out),
            (length, states, batch * length, *B.stride(), *C.stride()),
            NP=padded, TILE=lanes_of, ROWS=rows, num_warps=4,
        )  # fmt: skip
    return out


def wall_marks(reset: Tensor | None, reverse: bool, cut: Plan) -> tuple[Tensor | None, Tensor | None]:
    """uint8 walls before each step, (B, L), and whether a chunk holds any, (B, chunks)."""
    if reset is None:
        return None, None
    batch, length = reset.shape
    walls = reset.new_zeros((batch, cut.n_chunks * cut.chunk), dtype=torch.uint8)
    if reverse:
        walls[:, 1:length] = reset[:, 1:].flip(1)
    else:
        walls[:, :length] = reset
    return walls[:, :length].contiguous(), walls.view(batch, cut.n_chunks, cut.chunk).amax(-1)
