"""The launches of a scan's backward on a GPU; triton_rebuild and triton_gradient hold the kernels."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from genomamba.kernels.selective_scan import triton_gradient as gradient_kernels
from genomamba.kernels.selective_scan import triton_rebuild as rebuild_kernels
from genomamba.kernels.selective_scan.cut import LANES, lane_blocks, plan, scratch_bytes, slab_chunks
from genomamba.kernels.selective_scan.triton_launch import (
    Inputs,
    coupling_rows,
    known_strides,
    launch_flags,
    present,
    strides_of,
    wall_marks,
)

_SUMMED = 16  # tokens that one program adds the parts of B's and C's gradients of


class Gradients(NamedTuple):
    """Where the backward writes. Rows of dB and dC may lie apart, those of dz a multiple of D; else contiguous.

    ddt may be dt itself, and y may be dy.
    """

    du: Tensor  # (B, L, D)
    ddt: Tensor  # (B, L, D)
    dB: Tensor  # (B, L, N)
    dC: Tensor  # (B, L, N)
    dz: Tensor | None  # (B, L, D)
    y: Tensor | None = None  # (B, L, D): the output once more, for whoever did not keep it
    add: bool = False  # to what dz and y hold, which then are not dy


class Sums(NamedTuple):
    """The gradients that are sums over tokens, fp32."""

    dA: Tensor  # (D, N)
    dD: Tensor  # (D,)
    d_bias: Tensor  # (D,)
    d_initial: Tensor | None  # (B, D, N), where an initial state was given


def scan_backward(
    dy: Tensor,
    d_final: Tensor | None,
    entering: Tensor,
    given: Inputs,
    into: Gradients,
    scratch: int | None = None,
) -> Sums:
    """Writes the gradients per token to ``into`` and returns the others; not for empty inputs.

    ``entering`` is what the forward returned. ``scratch`` is how many bytes of it may be used. A gigabyte fills a
    large GPU; unless given, it is less where the inputs are so large that memory is what runs short.
    """
    u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse = given
    batch, length, channels = u.shape
    states = A.shape[1]
    cut = plan(batch, length, channels, states)
    padded, tile, blocks = cut.padded, cut.backward_tile, lane_blocks(channels)
    walls, chunk_walls = wall_marks(reset, reverse, cut)
    flags = launch_flags(length, channels, LANES, cut.keep, dt_bias, dt_softplus, walls, reverse)
    width, z_row = known_strides(z, u, dt, dy)
    shape = {"NP": padded, "N": tile, "BD": LANES, "num_warps": 1}
    strided = shape | {"WIDTH": width, "Z_ROW": z_row}
    lean = width > 0 and reset is None
    walls, chunk_walls = present(walls, u), present(chunk_walls, u)
    lanes = blocks * LANES
    whole = entering.dim() == 5  # the fine states of all of L, which is then one chunk
    if whole:
        chunk, n_chunks, most = cut.span, 1, 1
    else:
        chunk, n_chunks = cut.chunk, cut.n_chunks
        cores = torch.cuda.get_device_properties(u.device).multi_processor_count if u.is_cuda else None
        most = slab_chunks(cut, batch, channels, scratch or scratch_bytes(cut, u.numel() * u.element_size()), cores)
    of_channels = (batch, most, channels)
    carry, part_A, part_skip, part_bias = _zeros(
        u, (batch, padded, lanes), (batch, most, padded, lanes), of_channels, of_channels
    )
    if d_final is not None:
        if reset is not None and reverse:
            d_final = d_final.masked_fill(reset[:, 0, None, None], 0.0)
        order, _ = _lane_order(blocks, tile, padded, u.device)
        carry[:, :states, :channels] = d_final.transpose(1, 2)
        carry = carry.flatten(1)[:, order].view_as(carry)
    kept, asked = entering, carry
    if not whole:
        kept = u.new_empty((batch, most, chunk // cut.keep, padded, lanes), dtype=torch.float32)
        asked = u.new_empty((batch, most, padded, lanes), dtype=torch.float32)
    sums = u.new_empty((batch, most, channels), dtype=torch.float32)
    parts = u.new_empty((blocks, batch, most * chunk, 2, tile), dtype=torch.float32)
    tile_sums = [u, u, u]
    if padded > tile:
        size = (batch, most * chunk, channels)
        tile_sums = [u.new_empty(size, dtype=torch.float32) for _ in range(3)]
    strides = (*u.stride(), *dt.stride(), *strides_of(z), *dy.stride())
    scaled_A = u.new_empty((padded, lanes), dtype=torch.float32)
    with torch.cuda.device_of(u):
        rebuild_kernels.decay_kernel.launch(
            (blocks, padded // tile), (A, scaled_A), (channels, states, *A.stride()), N=tile, num_warps=1
        )
        for c0 in reversed(range(0, n_chunks, most)):
            here = min(most, n_chunks - c0)
            steps = here * chunk
            start, end = c0 * chunk, min(length, c0 * chunk + steps)
            if reverse:
                start, end = length - end, length - start
            coupling = coupling_rows(B[:, start:end], C[:, start:end], padded, tile)
            cuts = (chunk, c0, here, most, start, end - start)
            grid = (blocks * here * batch,)
            if not whole:
                rebuild_kernels.rebuild_kernel.launch(
                    (*grid, padded // tile),
                    (
                        u, dt, scaled_A, coupling, present(z, u), present(dt_bias, u), walls, dy, entering, kept, asked,
                        sums, part_skip,
                    ),
                    (length, channels, n_chunks, *cuts, *strides),
                    K=cut.keep, HAS_SKIP=D is not None, HAS_GATE=z is not None, STAGES=cut.stages,
                    maxnreg=cut.rebuild_registers if lean else None, **strided, **flags,
                )  # fmt: skip
                rebuild_kernels.adjoint_carry_kernel.launch(
                    (blocks, padded, batch),
                    (asked, sums, A, chunk_walls, carry),
                    (channels, states, n_chunks, c0, here, *A.stride()),
                    U=16, HAS_WALLS=reset is not None, STAGES=cut.stages, **shape,
                )  # fmt: skip
            for n0 in range(0, padded, tile):
                gradient_kernels.gradient_kernel.launch(
                    grid,
                    (
                        u, dt, scaled_A, coupling, present(D, u), present(z, u), present(dt_bias, u), walls, dy, kept,
                        asked, into.du, into.ddt, present(into.dz, u), present(into.y, u), parts, part_A, part_bias,
                        part_skip, *tile_sums,
                    ),
                    (length, channels, n0, *cuts, *strides),
                    K=cut.keep, HAS_SKIP=D is not None, HAS_GATE=z is not None, HAS_Y=into.y is not None,
                    DZ_ROW=1 if into.dz is None else into.dz.stride(1) // channels,
                    FIRST=n0 == 0, LAST=n0 + tile == padded, WHOLE=whole, ADD=into.add,
                    STAGES=cut.stages, maxnreg=cut.gradient_registers, **strided, **flags,
                )  # fmt: skip
                gradient_kernels.coupling_sum_kernel.launch(
                    (triton.cdiv(batch * steps, _SUMMED),),
                    (parts, into.dB, into.dC),
                    (
                        length, states, batch * steps, steps, c0 * chunk, blocks, n0,
                        *into.dB.stride()[:2], *into.dC.stride()[:2],
                    ),
                    N=tile, ROWS=_SUMMED, REVERSE=reverse, num_warps=2,
                )  # fmt: skip
    _, inverse = _lane_order(blocks, tile, padded, u.device)
    dA = part_A.sum((0, 1)).flatten()[inverse].view(padded, lanes)[:states, :channels].T
    d_initial = None
    if initial_state is not None:
        d_initial = carry.flatten(1)[:, inverse].view_as(carry)[:, :states, :channels].transpose(1, 2)
    return Sums(dA, part_skip.sum((0, 1)), part_bias.sum((0, 1)), d_initial)


def _zeros(like: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    """fp32, in one piece of memory that is set to zero at once; each begins where a kernel can read four at a time."""
    sizes = [-(-math.prod(shape) // 4) * 4 for shape in shapes]
    pieces = like.new_zeros(sum(sizes), dtype=torch.float32).split(sizes)
    return [piece[: math.prod(shape)].view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


@functools.lru_cache(maxsize=32)
def _lane_order(blocks: int, tile: int, padded: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each register and lane of the backward's lane order lies in (padded, blocks * 32), and the inverse."""
    register = torch.arange(padded)[:, None, None]
    block = torch.arange(blocks)[None, :, None]
    lane = torch.arange(LANES)[None, None, :]
    half = tile // 2
    channel = block * LANES + (lane ^ (register % tile // half * 16))
    state = register // tile * tile + lane // 16 * half + (register % half ^ (lane & (half - 1) & 4))
    order = (state * (blocks * LANES) + channel).flatten()
    return order.to(device), order.argsort().to(device)
