"""How a scan on a GPU is cut up, and which kernels run in which order; triton_forward, triton_rebuild and
triton_gradient hold the kernels."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from genomamba.kernels.selective_scan import triton_forward as forward_kernels
from genomamba.kernels.selective_scan import triton_gradient as gradient_kernels
from genomamba.kernels.selective_scan import triton_rebuild as rebuild_kernels

_LANES = 32


class Plan(NamedTuple):
    """How a scan is cut up. Depends on the shape alone, so that the same shape gives the same bits."""

    chunk: int  # steps between the states that are kept
    n_chunks: int
    span: int  # steps that one warp of the output pass walks: one chunk, or all
    n_spans: int
    padded: int  # states, a power of two
    forward_tile: int  # states that one lane holds
    forward_sides: int  # channels of one lane
    forward_unroll: int
    backward_tile: int
    keep: int  # the backward keeps the state at every keep-th step
    rebuild_unroll: int
    backward_registers: int


def plan(batch: int, length: int, channels: int, states: int) -> Plan:
    """The cut of a (batch, length, channels) scan; enough chunks to fill a large GPU."""
    padded = max(8, triton.next_power_of_2(states))
    columns = batch * triton.cdiv(channels, _LANES)
    chunk = 256
    while chunk > 32 and columns * triton.cdiv(length, chunk) < 8192:
        chunk //= 2
    tile = min(padded, 16)
    n_chunks = triton.cdiv(length, chunk)
    # Enough rows and channels fill the GPU by themselves, and no state pass is needed.
    alone = n_chunks == 1 or columns >= 1536
    return Plan(
        chunk=chunk,
        n_chunks=n_chunks,
        span=n_chunks * chunk if alone else chunk,
        n_spans=1 if alone else n_chunks,
        padded=padded,
        forward_tile=tile,
        forward_sides=1,
        forward_unroll=4,
        backward_tile=tile,
        keep=4,
        rebuild_unroll=2,
        backward_registers=255,
    )


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


class Gradients(NamedTuple):
    """Where the backward writes. Rows of dB and dC may lie apart, those of dz a multiple of D; else contiguous."""

    du: Tensor  # (B, L, D)
    ddt: Tensor  # (B, L, D)
    dB: Tensor  # (B, L, N)
    dC: Tensor  # (B, L, N)
    dz: Tensor | None  # (B, L, D)
    y: Tensor | None = None  # (B, L, D): the output once more, for whoever did not keep it


class Sums(NamedTuple):
    """The gradients that are sums over tokens, fp32."""

    dA: Tensor  # (D, N)
    dD: Tensor  # (D,)
    d_bias: Tensor  # (D,)
    d_initial: Tensor  # (B, D, N)


def output_shapes(given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Unwritten: y, the final state, and the state that enters each chunk, (B, chunks, padded N, D)."""
    batch, length, channels = given.u.shape
    cut = plan(batch, length, channels, given.A.shape[1])
    return (
        given.u.new_empty((batch, length, channels)),
        given.u.new_empty((batch, channels, given.A.shape[1]), dtype=torch.float32),
        given.u.new_empty((batch, cut.n_chunks, cut.padded, channels), dtype=torch.float32),
    )


def scan_forward(given: Inputs, *, keep: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and the state that enters each chunk, which the backward needs.

    Without ``keep`` the last may be unwritten.
    """
    u, dt, A, B, C, D, z, dt_bias, initial_state, reset, dt_softplus, reverse = given
    batch, length, channels = u.shape
    states = A.shape[1]
    cut = plan(batch, length, channels, states)
    y, final, entering = output_shapes(given)
    if u.numel() == 0:
        final.copy_(initial_state) if initial_state is not None else final.zero_()
        return y, final, entering
    coupling = _coupling(B, C, cut.padded)
    walls, chunk_walls = _walls(reset, reverse, cut)
    blocks = triton.cdiv(channels, cut.forward_sides * _LANES)
    flags = _flags(
        length, channels, cut.forward_sides * _LANES, cut.forward_unroll, dt_bias, dt_softplus, walls, reverse
    )
    walls, chunk_walls = _present(walls, u), _present(chunk_walls, u)
    with torch.cuda.device_of(u):
        if cut.n_spans == 1:
            entering[:, 0].zero_()
            if initial_state is not None:
                entering[:, 0, :states].copy_(initial_state.transpose(1, 2))
        else:
            sums = u.new_empty((batch, cut.n_chunks, channels), dtype=torch.float32)
            forward_kernels.state_kernel[(blocks * cut.n_chunks * batch, cut.padded // cut.forward_tile)](
                u, dt, A, coupling, _present(dt_bias, u), walls, entering, sums, length, channels, states,
                cut.chunk, cut.n_chunks, *u.stride(), *dt.stride(), *A.stride(),
                NP=cut.padded, N=cut.forward_tile, SIDES=cut.forward_sides, U=cut.forward_unroll,
                num_warps=1, **flags,
            )  # fmt: skip
            forward_kernels.carry_kernel[(triton.cdiv(channels, _LANES), cut.padded, batch)](
                entering, sums, A, chunk_walls, _present(initial_state, u), channels, states, cut.n_chunks,
                *A.stride(), *_strides(initial_state), NP=cut.padded, BD=_LANES, U=16,
                HAS_INITIAL=initial_state is not None, HAS_WALLS=reset is not None, num_warps=1,
            )  # fmt: skip
        sum_y = u
        if cut.padded > cut.forward_tile:
            sum_y = u.new_empty(u.shape, dtype=torch.float32)
        for n0 in range(0, cut.padded, cut.forward_tile):
            forward_kernels.output_kernel[(blocks * cut.n_spans * batch,)](
                u, dt, A, coupling, _present(D, u), _present(z, u), _present(dt_bias, u), walls, entering, sum_y, y,
                final, length, channels, states, cut.chunk, cut.n_chunks, cut.span, cut.n_spans, n0,
                *u.stride(), *dt.stride(), *A.stride(), *_strides(z),
                NP=cut.padded, N=cut.forward_tile, SIDES=cut.forward_sides, U=cut.forward_unroll,
                HAS_SKIP=D is not None, HAS_GATE=z is not None,
                FIRST=n0 == 0, LAST=n0 + cut.forward_tile == cut.padded,
                KEEP=keep and cut.n_spans < cut.n_chunks,
                num_warps=1, **flags,
            )  # fmt: skip
    if reset is not None and reverse:
        final.masked_fill_(reset[:, 0, None, None], 0.0)
    return y, final, entering


def scan_backward(
    dy: Tensor,
    d_final: Tensor | None,
    entering: Tensor,
    given: Inputs,
    into: Gradients,
    scratch: int | None = None,
) -> Sums:
    """Writes the gradients per token to ``into`` and returns the others; not for empty inputs.

    ``scratch`` is how many bytes of it may be used. A gigabyte fills a large GPU; unless given, it is less where
    the inputs are so large that memory is what runs short.
    """
    u, dt, A, B, C, D, z, dt_bias, _, reset, dt_softplus, reverse = given
    batch, length, channels = u.shape
    states = A.shape[1]
    cut = plan(batch, length, channels, states)
    padded, tile, blocks = cut.padded, cut.backward_tile, triton.cdiv(channels, _LANES)
    walls, chunk_walls = _walls(reset, reverse, cut)
    flags = _flags(length, channels, _LANES, cut.keep, dt_bias, dt_softplus, walls, reverse)
    shape = {"NP": padded, "N": tile, "BD": _LANES, "num_warps": 1}
    walls, chunk_walls = _present(walls, u), _present(chunk_walls, u)
    if d_final is None:
        d_final = u.new_zeros((batch, channels, states), dtype=torch.float32)
    elif reset is not None and reverse:
        d_final = d_final.masked_fill(reset[:, 0, None, None], 0.0)
    carry = _to_lanes(d_final.transpose(1, 2), cut, blocks)
    most = _slab_chunks(cut, batch, channels, u.device, scratch or _scratch(u, cut))
    width = blocks * _LANES
    kept = u.new_empty((batch, most, cut.chunk // cut.keep, padded, width), dtype=torch.float32)
    asked = u.new_empty((batch, most, padded, width), dtype=torch.float32)
    sums = u.new_empty((batch, most, channels), dtype=torch.float32)
    parts = u.new_empty((blocks, batch, most * cut.chunk, 2, tile), dtype=torch.float32)
    part_A = u.new_zeros((batch, most, padded, width), dtype=torch.float32)
    part_skip, part_bias = u.new_zeros((2, batch, most, channels), dtype=torch.float32)
    tile_sums = [u, u, u]
    if padded > tile:
        size = (batch, most * cut.chunk, channels)
        tile_sums = [u.new_empty(size, dtype=torch.float32) for _ in range(3)]
    strides = (*u.stride(), *dt.stride(), *_strides(z), *dy.stride())
    scaled_A = _scaled_A(A, cut, blocks)
    with torch.cuda.device_of(u):
        for c0 in reversed(range(0, cut.n_chunks, most)):
            here = min(most, cut.n_chunks - c0)
            steps = here * cut.chunk
            start, end = c0 * cut.chunk, min(length, c0 * cut.chunk + steps)
            if reverse:
                start, end = length - end, length - start
            coupling = _coupling(B[:, start:end], C[:, start:end], padded)
            cuts = (cut.chunk, c0, here, most, start, end - start)
            grid = (blocks * here * batch,)
            rebuild_kernels.rebuild_kernel[(*grid, padded // tile)](
                u, dt, scaled_A, coupling, _present(z, u), _present(dt_bias, u), walls, dy, entering, kept, asked, sums,
                part_skip, length, channels, cut.n_chunks, *cuts, *strides,
                K=cut.keep, U=cut.rebuild_unroll, HAS_SKIP=D is not None, HAS_GATE=z is not None, **shape, **flags,
            )  # fmt: skip
            rebuild_kernels.adjoint_carry_kernel[(blocks, padded, batch)](
                asked, sums, A, chunk_walls, carry, channels, states, cut.n_chunks, c0, here, *A.stride(),
                U=16, HAS_WALLS=reset is not None, **shape,
            )  # fmt: skip
            for n0 in range(0, padded, tile):
                gradient_kernels.gradient_kernel[grid](
                    u, dt, scaled_A, coupling, _present(D, u), _present(z, u), _present(dt_bias, u), walls, dy, kept,
                    asked, into.du, into.ddt, _present(into.dz, u), _present(into.y, u), parts, part_A, part_bias,
                    *tile_sums, length, channels, n0, *cuts, *strides,
                    K=cut.keep, HAS_SKIP=D is not None, HAS_GATE=z is not None, HAS_Y=into.y is not None,
                    DZ_ROW=1 if into.dz is None else into.dz.stride(1) // channels,
                    FIRST=n0 == 0, LAST=n0 + tile == padded,
                    ASM=not triton.knobs.runtime.interpret, maxnreg=cut.backward_registers, **shape, **flags,
                )  # fmt: skip
                rows = 16
                gradient_kernels.coupling_sum_kernel[(triton.cdiv(batch * steps, rows),)](
                    parts, into.dB, into.dC, length, states, batch * steps, steps, c0 * cut.chunk, blocks, n0,
                    *into.dB.stride()[:2], *into.dC.stride()[:2],
                    N=tile, ROWS=rows, REVERSE=reverse, num_warps=2,
                )  # fmt: skip
    return Sums(
        _from_lanes(part_A.sum((0, 1))[None], cut, blocks, states, channels)[0].T,
        part_skip.sum((0, 1)),
        part_bias.sum((0, 1)),
        _from_lanes(carry, cut, blocks, states, channels).transpose(1, 2),
    )


def _present(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A kernel needs some pointer where there is no tensor; a flag tells it not to read there."""
    return other if tensor is None else tensor


def _strides(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 1) if tensor is None else tensor.stride()


def _flags(
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


def _coupling(B: Tensor, C: Tensor, padded: int) -> Tensor:
    """B and C side by side, fp32 (B, L, 2, padded N)."""
    batch, length, states = B.shape
    # Kernels may ask for a few rows before the first and after the last.
    size, spare = batch * length * 2 * padded, 16 * padded
    out = B.new_empty(size + 2 * spare, dtype=torch.float32)[spare : spare + size].view(batch, length, 2, padded)
    rows = max(1, 512 // padded)
    with torch.cuda.device_of(B):
        forward_kernels.coupling_kernel[(triton.cdiv(batch * length, rows),)](
            B, C, out, length, states, batch * length, *B.stride(), *C.stride(),
            NP=padded, NPW=padded, ROWS=rows, num_warps=4,
        )  # fmt: skip
    return out


def _walls(reset: Tensor | None, reverse: bool, cut: Plan) -> tuple[Tensor | None, Tensor | None]:
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


@functools.lru_cache(maxsize=32)
def _lane_order(blocks: int, tile: int, padded: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each register and lane of the backward's lane order lies in (padded, blocks * 32), and the inverse."""
    register = torch.arange(padded)[:, None, None]
    block = torch.arange(blocks)[None, :, None]
    lane = torch.arange(_LANES)[None, None, :]
    half = tile // 2
    channel = block * _LANES + (lane ^ (register % tile // half * 16))
    state = register // tile * tile + lane // 16 * half + (register % half ^ (lane & (half - 1) & 4))
    order = (state * (blocks * _LANES) + channel).flatten()
    return order.to(device), order.argsort().to(device)


def _to_lanes(states: Tensor, cut: Plan, blocks: int) -> Tensor:
    """(B, N, D) to lane order, (B, padded, blocks * 32), zero where padded."""
    batch, count, channels = states.shape
    full = states.new_zeros((batch, cut.padded, blocks * _LANES), dtype=torch.float32)
    full[:, :count, :channels] = states
    order, _ = _lane_order(blocks, cut.backward_tile, cut.padded, states.device)
    return full.flatten(1)[:, order].view_as(full)


def _from_lanes(lanes: Tensor, cut: Plan, blocks: int, states: int, channels: int) -> Tensor:
    """What `_to_lanes` was given."""
    _, inverse = _lane_order(blocks, cut.backward_tile, cut.padded, lanes.device)
    return lanes.flatten(1)[:, inverse].view_as(lanes)[:, :states, :channels]


def _scaled_A(A: Tensor, cut: Plan, blocks: int) -> Tensor:
    """A log2(e) in lane order as `kept_state` reads it: (tiles, blocks, tile / 4, lanes, 4)."""
    lanes = _to_lanes(A.T[None] * math.log2(math.e), cut, blocks)
    tile = cut.backward_tile
    return lanes.view(cut.padded // tile, tile // 4, 4, blocks, _LANES).permute(0, 3, 1, 4, 2).contiguous()


def _scratch(u: Tensor, cut: Plan) -> int:
    large = u.numel() * u.element_size() >= 1 << 30
    return max(1, cut.padded // 16) * ((240 << 20) if large else (1 << 30))


def _slab_chunks(cut: Plan, batch: int, channels: int, device: torch.device, scratch: int) -> int:
    """Chunks of one slab of the backward: what fits its scratch, rounded down to whole waves of programs."""
    blocks = triton.cdiv(channels, _LANES)
    per_token = 4 * _LANES * cut.padded // cut.keep + 8 * cut.backward_tile
    if cut.padded > cut.backward_tile:
        per_token += 12 * _LANES
    fitting = scratch // (per_token * batch * blocks * cut.chunk)
    if cut.n_chunks <= fitting + fitting // 2:
        return cut.n_chunks
    if device.type == "cuda":
        wave = 8 * torch.cuda.get_device_properties(device).multi_processor_count
        waves = fitting * blocks * batch // wave
        fitting = waves * wave // (blocks * batch) if waves else fitting
    return max(1, fitting)
