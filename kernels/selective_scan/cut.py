"""How a scan on a GPU is cut up, and the memory that the cut takes. Plain numbers: whoever plans needs no Triton."""

from __future__ import annotations

import math
from typing import NamedTuple

LANES = 32
# Warps that leave little of a large GPU idle.
_ALONE = 512
# Warps of the gradient kernel that run at a time on one multiprocessor, and on one GPU of 132.
_WARPS = 8
_WAVE = 132 * _WARPS


class Plan(NamedTuple):
    """How a scan is cut up. Depends on the shape alone: with scratch and what is kept, which depend on the GPU's
    memory, the same shape gives the same bits on GPUs of one kind."""

    chunk: int  # steps between the states that are kept
    n_chunks: int
    span: int  # steps that one warp of the output pass walks: one chunk, or all
    n_spans: int
    padded: int  # states, a power of two
    forward_tile: int  # states that one lane holds; backward_tile where it keeps fine states
    forward_unroll: int
    backward_tile: int
    keep: int  # the backward keeps the state at every keep-th step
    stages: int  # groups of steps that a warp has asked for before it needs them, and the one that it computes
    # A lane's, with strides compiled in and no walls.
    state_registers: int
    output_registers: int
    fine_registers: int  # of the output pass where it keeps fine states
    rebuild_registers: int
    gradient_registers: int  # always


def plan(batch: int, length: int, channels: int, states: int) -> Plan:
    """The cut of a (batch, length, channels) scan; enough chunks to fill a large GPU."""
    padded = max(8, 1 << (states - 1).bit_length())
    columns = batch * lane_blocks(channels)
    chunk = 256
    while chunk > 32 and columns * -(-length // chunk) < 8192:
        chunk //= 2
    tile = min(padded, 32)
    n_chunks = -(-length // chunk)
    # Enough rows and channels fill the GPU by themselves, and no state pass is needed.
    alone = n_chunks == 1 or columns >= _ALONE
    return Plan(
        chunk=chunk,
        n_chunks=n_chunks,
        span=n_chunks * chunk if alone else chunk,
        n_spans=1 if alone else n_chunks,
        padded=padded,
        forward_tile=tile,
        forward_unroll=4,
        backward_tile=min(tile, 16),
        keep=4,
        stages=3,
        state_registers=72 if tile <= 16 else 104,
        output_registers=128 if tile <= 16 else 168,
        fine_registers=96,
        rebuild_registers=168,
        gradient_registers=255,
    )


def lane_blocks(channels: int) -> int:
    """Warps across the channels."""
    return -(-channels // LANES)


def entering_shape(cut: Plan, batch: int, channels: int) -> tuple[int, ...]:
    """Of the states that enter the chunks."""
    return batch, cut.n_chunks, cut.padded, channels


def coupling_shape(batch: int, length: int, padded: int, *, lanes: bool = False) -> tuple[int, ...]:
    """Of B and C side by side, fp32; for lanes, as the backward has them, each number twice."""
    return batch, length, 2, 2 * padded if lanes else padded


def fine_shape(cut: Plan, batch: int, channels: int) -> tuple[int, ...]:
    """Of the states before every ``keep``-th step, in the backward's lane order."""
    blocks = lane_blocks(channels)
    return batch, cut.span // cut.keep, cut.padded // cut.backward_tile, blocks, cut.backward_tile * LANES


def walks_back(cut: Plan, batch: int, channels: int, most_bytes: int) -> bool:
    """Whether one warp can walk all of L backwards too, and the states it needs on the way are few enough."""
    warps = batch * lane_blocks(channels)
    wave = -(-warps // _WAVE) * _WAVE
    few = 4 * math.prod(fine_shape(cut, batch, channels)) <= most_bytes
    return cut.n_spans == 1 and 4 * warps >= 3 * wave and few


def scratch_bytes(cut: Plan, bytes_of_u: int) -> int:
    """Of the backward's scratch, unless its caller says how much."""
    return max(1, cut.padded // 16) * ((240 << 20) if bytes_of_u >= 1 << 30 else (1 << 30))


def scratch_per_token(cut: Plan, *, rebuilds: bool) -> int:
    """Bytes of the backward's scratch for each token and warp across the channels.

    Args:
        cut: of the scan.
        rebuilds: whether it has to rebuild the states, and to keep those of a slab.
    """
    per_token = 8 * cut.backward_tile  # parts of dB and dC
    if rebuilds:
        per_token += 4 * LANES * cut.padded // cut.keep
    if cut.padded > cut.backward_tile:
        per_token += 12 * LANES  # sums over tiles
    return per_token


def slab_chunks(cut: Plan, batch: int, channels: int, scratch: int, multiprocessors: int | None) -> int:
    """Chunks of one slab of the backward: what fits its scratch, rounded down to whole waves of programs.

    Args:
        cut: of the scan.
        batch: rows.
        channels: of a row.
        scratch: bytes.
        multiprocessors: of the GPU; None where there is none.
    """
    blocks = lane_blocks(channels)
    fitting = scratch // (scratch_per_token(cut, rebuilds=True) * batch * blocks * cut.chunk)
    if cut.n_chunks <= fitting + fitting // 2:
        return cut.n_chunks
    if multiprocessors is not None:
        wave = _WARPS * multiprocessors
        waves = fitting * blocks * batch // wave
        fitting = waves * wave // (blocks * batch) if waves else fitting
    return max(1, fitting)
