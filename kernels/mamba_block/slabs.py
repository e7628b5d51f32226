"""A Mamba block in slabs of L, so that what it needs beside its inputs does not grow with L.

Each direction walks its slabs in the order in which it reads and hands on the state of the scan and the last
inputs of the convolution; the backward walks them the other way and hands on the gradients of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d.triton import leaving_inputs
from genomamba.kernels.mamba_block.api import Direction
from genomamba.kernels.mamba_block.reading import Edges, read, read_backward
from genomamba.kernels.selective_scan.triton_launch import scan_forward


class Shared(NamedTuple):
    """What all directions share; weights in the dtype of the projections."""

    in_proj: Tensor  # (2 D, d_model)
    in_bias: Tensor | None
    out_proj: Tensor  # (d_model, D)
    out_bias: Tensor | None
    reset: Tensor | None  # (B, L)


class Slab(NamedTuple):
    """One piece of L as a direction meets it."""

    tokens: slice
    tail: slice | None  # the tokens read just before it, which its convolution reaches back to


def slabs(length: int, size: int, reach: int, reverse: bool) -> list[Slab]:
    """Pieces of ``size`` >= ``reach`` tokens, in reading order; one of them is shorter or a little longer."""
    starts = list(range(0, length, size))
    if len(starts) > 1 and length - starts[-1] < reach:
        starts.pop()  # every tail lies in one slab
    ends = [*starts[1:], length]
    found = []
    for start, end in zip(starts, ends, strict=True):
        tail = slice(end, end + reach) if reverse else slice(start - reach, start)
        inside = end < length if reverse else start > 0
        found.append(Slab(slice(start, end), tail if inside else None))
    return found[::-1] if reverse else found


def forward_in_slabs(
    normed: Tensor, shared: Shared, directions: Sequence[Direction], reverse: Sequence[bool], size: int, keep: bool
) -> tuple[Tensor, list[list[Tensor | None]], list[list[Tensor]]]:
    """The block's output, and for each direction and slab the state that enters it and those that enter its chunks."""
    out = normed.new_empty((*normed.shape[:2], shared.out_proj.shape[0]))
    states: list[list[Tensor | None]] = []
    entering: list[list[Tensor]] = []
    for k, (direction, backwards) in enumerate(zip(directions, reverse, strict=True)):
        state: Tensor | None = None
        states.append([])
        entering.append([])
        for slab in slabs(normed.shape[1], size, direction.conv_weight.shape[1] - 1, backwards):
            p, edges, _ = _project(normed, shared, slab, backwards, state)
            reading = read(p, direction, _part(shared.reset, slab), backwards, edges)
            states[k].append(state)
            y, state, chunks = scan_forward(reading.scan, keep=keep)
            entering[k].append(chunks)
            part = F.linear(y, shared.out_proj, None if k else shared.out_bias)
            out[:, slab.tokens] = out[:, slab.tokens] + part if k else part
            del p, reading, y, part
    return out, states, entering


class SharedGradients(NamedTuple):
    """fp32 sums over tokens, and the gradient of the normed stream."""

    d_normed: Tensor  # (B, L, d_model)
    d_in_proj: Tensor
    d_in_bias: Tensor  # zero where there is no bias
    d_out_proj: Tensor


def backward_in_slabs(
    d_out: Tensor,
    normed: Tensor,
    shared: Shared,
    directions: Sequence[Direction],
    reverse: Sequence[bool],
    size: int,
    states: Sequence[Sequence[Tensor | None]],
    entering: Sequence[Sequence[Tensor]],
    scratch: int,
) -> tuple[SharedGradients, list[Tensor | None]]:
    """The gradients of what is shared, and of the weights of all directions, one after the other; spends ``normed``."""
    wide = torch.float32
    found = SharedGradients(
        # No slab is read again after its turn.
        normed if len(directions) == 1 else torch.empty_like(normed),
        torch.zeros_like(shared.in_proj, dtype=wide),
        shared.in_proj.new_zeros(shared.in_proj.shape[0], dtype=wide),
        torch.zeros_like(shared.out_proj, dtype=wide),
    )
    d_weights: list[Tensor | None] = []
    for k, (direction, backwards) in enumerate(zip(directions, reverse, strict=True)):
        reach = direction.conv_weight.shape[1] - 1
        totals: list[Tensor | None] = [None if w is None else torch.zeros_like(w, dtype=wide) for w in direction]
        d_state: Tensor | None = None  # of the state that this slab leaves
        owed: Tensor | None = None  # to the last inputs of this slab, by the one read after it
        pieces = slabs(normed.shape[1], size, reach, backwards)
        for number in reversed(range(len(pieces))):
            slab = pieces[number]
            reset = _part(shared.reset, slab)
            p, edges, open_edge = _project(normed, shared, slab, backwards, states[k][number])
            edges = edges._replace(d_state=d_state)
            dy = d_out[:, slab.tokens] @ shared.out_proj
            dp = torch.empty_like(p)
            reading = read(p, direction, reset, backwards, edges)
            y, gradients, d_state, d_tail = read_backward(
                p, reading, dy, entering[k][number], direction, reset, backwards, dp, edges, scratch
            )
            if owed is not None:
                ends = slice(0, reach) if backwards else slice(dp.shape[1] - reach, None)
                dp[:, ends].chunk(2, dim=-1)[0].add_(owed)
            # No gradient passes a wall that the inputs did not.
            owed = None if d_tail is None else torch.where(open_edge, d_tail, d_tail.new_zeros(()))
            for total, part in zip(totals, gradients, strict=True):
                if total is not None and part is not None:
                    total += part
            found.d_out_proj.add_(outer(d_out[:, slab.tokens], y))
            found.d_in_proj.add_(outer(dp, normed[:, slab.tokens]))
            if shared.in_bias is not None:
                found.d_in_bias.add_(dp.flatten(0, 1).sum(0, dtype=wide))
            part = dp @ shared.in_proj
            found.d_normed[:, slab.tokens] = found.d_normed[:, slab.tokens] + part if k else part
            del p, dy, dp, reading, y, part  # before the next slab's take their place
        d_weights += totals
    return found, d_weights


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ over tokens of left_t right_tᵀ."""
    return left.flatten(0, 1).t() @ right.flatten(0, 1)


def _project(
    normed: Tensor, shared: Shared, slab: Slab, reverse: bool, state: Tensor | None
) -> tuple[Tensor, Edges, Tensor]:
    """The projected slab, what enters it, and which of the inputs before it no wall shuts out."""
    p = F.linear(normed[:, slab.tokens], shared.in_proj, shared.in_bias)
    if slab.tail is None:
        return p, Edges(state, None, None), p.new_ones((), dtype=torch.bool)
    half = p.shape[-1] // 2
    bias = None if shared.in_bias is None else shared.in_bias[:half]
    before = F.linear(normed[:, slab.tail], shared.in_proj[:half], bias)
    marks = None if shared.reset is None else shared.reset[:, slab.tail]
    reach = before.shape[1]
    inputs = leaving_inputs(before, reach, None, marks, reverse)
    return p, Edges(state, inputs, None), leaving_inputs(torch.ones_like(before), reach, None, marks, reverse) != 0


def _part(reset: Tensor | None, slab: Slab) -> Tensor | None:
    return None if reset is None else reset[:, slab.tokens]
