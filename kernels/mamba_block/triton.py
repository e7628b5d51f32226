"""A Mamba block on a GPU that keeps little.

Kept are the stream and the states that enter the scan's chunks. The backward goes from the stream through norm,
projection and convolution once more; the forward scan is not run again: the backward rebuilds its states and hands
out the gated y on the way. Where memory is plenty more is kept, and less is computed again; where the projected input
is larger than it may be, the block runs in slabs of L. README.md has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genomamba.kernels.mamba_block import budget
from genomamba.kernels.mamba_block.api import Direction
from genomamba.kernels.mamba_block.reading import Edges, Kept, read, read_backward
from genomamba.kernels.mamba_block.slabs import Shared, backward_in_slabs, forward_in_slabs, outer
from genomamba.kernels.rms_norm.triton import norm_backward, norm_forward
from genomamba.kernels.selective_scan.triton import check_runnable
from genomamba.kernels.selective_scan.triton_launch import scan_forward


def mamba_block_triton(
    x: Tensor,
    residual: Tensor | None,
    norm_weight: Tensor,
    in_proj: Tensor,
    in_bias: Tensor | None,
    directions: Sequence[Direction],
    reverse: Sequence[bool],
    out_proj: Tensor,
    out_bias: Tensor | None,
    eps: float,
    reset: Tensor | None,
    slab_bytes: int,
    depth: int,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.mamba_block`.

    Raises:
        KernelUnavailableError: no GPU, fp64 inputs, or more than 256 states.
    """
    states = directions[0].A_log.shape[1]
    check_runnable(x, states, norm_weight, in_proj, out_proj)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    weights = [tensor for direction in directions for tensor in direction]
    per_token = x.shape[0] * in_proj.shape[0] * dtype.itemsize
    slab = budget.slab_tokens(per_token, slab_bytes)
    share = slab_bytes, _device_bytes(x.device), depth * len(directions)
    small, fine = budget.small_bytes(*share), budget.fine_bytes(*share)
    options = _Options(tuple(reverse), eps, dtype, slab, torch.is_grad_enabled(), small, fine)
    return _Block.apply(x, residual, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, options, *weights)


def _device_bytes(device: torch.device) -> int:
    """All the memory of a GPU; in the interpreter, without one, as if it were a large one."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 1 << 37


class _Options(NamedTuple):
    reverse: tuple[bool, ...]
    eps: float
    dtype: torch.dtype  # of the projections
    slab: int  # tokens
    keep: bool  # whether there may be a backward
    small: int  # bytes up to which a tensor is kept that the backward could compute again
    fine: int  # bytes that the states of the scan may take which spare the backward to rebuild them


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        norm_weight: Tensor,
        in_proj: Tensor,
        in_bias: Tensor | None,
        out_proj: Tensor,
        out_bias: Tensor | None,
        reset: Tensor | None,
        options: _Options,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        directions = _directions(weights)

        def if_small(tensor: Tensor) -> Tensor | None:
            return tensor if options.keep and tensor.numel() * tensor.element_size() <= options.small else None

        p: Tensor | None = None
        kept_normed: Tensor | None = None
        kept: list[Kept] = []
        states: list[list[Tensor | None]] = []
        with torch.autocast(x.device.type, enabled=False):
            shared = _shared(in_proj, in_bias, out_proj, out_bias, reset, options.dtype)
            sums = residual is not None or x.dtype != torch.float32
            normed, stream = norm_forward(x, norm_weight, residual, options.eps, options.dtype, keep_stream=sums)
            if normed.shape[1] > options.slab:
                out, states, entering = forward_in_slabs(
                    normed, shared, directions, options.reverse, options.slab, options.keep
                )
            else:
                p = F.linear(normed, shared.in_proj, shared.in_bias)
                kept_normed = if_small(normed)
                del normed
                total, entering = None, []
                for direction, backwards in zip(directions, options.reverse, strict=True):
                    reading = read(p, direction, reset, backwards)
                    total, _, chunks = scan_forward(
                        reading.scan, keep=options.keep, fine_bytes=options.fine, add_to=total
                    )
                    kept.append(Kept(if_small(reading.scan.u), if_small(reading.dbl), if_small(reading.scan.dt)))
                    del reading
                    entering.append([chunks])
                p = if_small(p)
                assert total is not None
                out = F.linear(total, shared.out_proj, shared.out_bias)
        ctx.pieces = [len(of_direction) for of_direction in entering]
        ctx.save_for_backward(
            stream, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, kept_normed, p,
            *weights, *_flat(kept), *_flat(entering), *_flat(states),
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.options = options
        ctx.x_dtype, ctx.residual_dtype = x.dtype, None if residual is None else residual.dtype
        return out, stream

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_stream: Tensor | None) -> tuple[Any, ...]:
        stream, norm_weight, in_proj, in_bias, out_proj, out_bias, reset, normed, p, *rest = ctx.saved_tensors
        options: _Options = ctx.options
        count = len(options.reverse)
        weights, rest = rest[: count * len(Direction._fields)], rest[count * len(Direction._fields) :]
        directions = _directions(weights)
        in_slabs = stream.shape[1] > options.slab
        scratch = budget.scratch_bytes(_device_bytes(stream.device), in_slabs=in_slabs)
        if d_out is None:
            d_out = stream.new_zeros(stream.shape, dtype=options.dtype)
        with torch.autocast(stream.device.type, enabled=False):
            d_out = d_out.to(options.dtype)
            shared = _shared(in_proj, in_bias, out_proj, out_bias, reset, options.dtype)
            if normed is None:
                normed = norm_forward(stream, norm_weight, None, options.eps, options.dtype, keep_stream=False)[0]
            if in_slabs:
                entering, states = _apart(rest, ctx.pieces)
                found, d_weights = backward_in_slabs(
                    d_out, normed, shared, directions, options.reverse, options.slab, states, entering, scratch
                )
                d_normed, d_in_proj, d_in_bias, d_out_proj = found
            else:
                if p is None:
                    p = F.linear(normed, shared.in_proj, shared.in_bias)
                size = len(Kept._fields)
                kept, entering = [Kept(*rest[k * size : (k + 1) * size]) for k in range(count)], rest[count * size :]
                dy = d_out @ shared.out_proj
                dp = torch.empty_like(p)
                y, d_weights = None, []
                for k, direction in enumerate(directions):
                    backwards = options.reverse[k]
                    reading = read(p, direction, reset, backwards, kept=kept[k])
                    y, gradients, _, _ = read_backward(
                        p, reading, dy, entering[k], direction, reset, backwards, dp, Edges(), scratch,
                        y=y, spend_dt=kept[k].dt is None, spend_dy=count == 1,
                    )  # fmt: skip
                    del reading
                    d_weights += gradients
                assert y is not None
                d_out_proj = outer(d_out, y)
                del y, dy, p
                d_in_proj = outer(dp, normed)
                d_in_bias = None if in_bias is None else dp.flatten(0, 1).sum(0)
                d_normed = dp @ shared.in_proj
                del dp
            del normed
            narrow = None if ctx.x_dtype == torch.float32 else ctx.x_dtype
            d_sum, d_narrow, d_norm = norm_backward(d_normed, d_stream, stream, norm_weight, options.eps, narrow)
        return (
            d_sum if d_narrow is None else d_narrow,
            None if ctx.residual_dtype is None else d_sum.to(ctx.residual_dtype),
            d_norm.to(norm_weight.dtype),
            d_in_proj.to(in_proj.dtype),
            None if in_bias is None or d_in_bias is None else d_in_bias.to(in_bias.dtype),
            d_out_proj.to(out_proj.dtype),
            None if out_bias is None else d_out.flatten(0, 1).sum(0).to(out_bias.dtype),
            None,
            None,
            *(None if g is None or w is None else g.to(w.dtype) for g, w in zip(d_weights, weights, strict=True)),
        )


def _shared(
    in_proj: Tensor,
    in_bias: Tensor | None,
    out_proj: Tensor,
    out_bias: Tensor | None,
    reset: Tensor | None,
    dtype: torch.dtype,
) -> Shared:
    cast = (None if t is None else t.to(dtype) for t in (in_bias, out_bias))
    return Shared(in_proj.to(dtype), next(cast), out_proj.to(dtype), next(cast), reset)


def _directions(weights: Sequence[Any]) -> list[Direction]:
    size = len(Direction._fields)
    return [Direction(*weights[k : k + size]) for k in range(0, len(weights), size)]


def _flat(lists: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for part in lists for item in part]


def _apart(items: Sequence[Any], pieces: Sequence[int]) -> tuple[list[list[Any]], list[list[Any]]]:
    """What `_flat` made of two lists of lists with ``pieces`` items each."""
    rest = iter(items)
    first, second = ([[next(rest) for _ in range(size)] for size in pieces] for _ in range(2))
    return first, second
