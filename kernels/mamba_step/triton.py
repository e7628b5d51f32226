"""One token through Mamba layers on a GPU, in three launches a layer, to be captured in a CUDA graph.

At batch 1 a token's arithmetic is nothing: launches, and reading the weights once, are what takes time. So a layer is
norm and input projection; convolution, scan and gate; output projection into the residual stream.
"""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError

if importlib.util.find_spec("triton") is None:
    raise KernelUnavailableError("the package triton is not installed; `pip install triton` (Linux)")

import triton

from genomamba.kernels.mamba_step import triton_kernels

_ELEMENTS = 2048  # of a matrix, that a program of 4 warps reads at once
LARGEST_VOCABULARY = 64  # whose logits one program ranks


class LayerWeights(NamedTuple):
    """Of one layer, as the model has them, contiguous."""

    norm: Tensor  # (d_model,)
    eps: float
    in_proj: Tensor  # (2 d_inner, d_model)
    taps: Tensor  # (d_inner, d_conv)
    conv_bias: Tensor | None  # (d_inner,)
    x_proj: Tensor  # (dt_rank + 2 N, d_inner)
    dt_proj: Tensor  # (d_inner, dt_rank)
    dt_bias: Tensor  # (d_inner,)
    A: Tensor  # (d_inner, N), fp32, times log2(e)
    D: Tensor  # (d_inner,)
    out_proj: Tensor  # (d_model, d_inner)


class LayerState(NamedTuple):
    """What a layer carries from token to token, changed in place."""

    ring: Tensor  # (B, d_conv, d_inner), fp32: the convolution's last inputs
    scan: Tensor  # (B, d_inner, N), fp32


def decay_of(A_log: Tensor) -> Tensor:
    """(d_inner, N): -exp(A_log) in powers of 2."""
    return -torch.exp(A_log.float()) * math.log2(math.e)


def ring_of(conv: Tensor) -> Tensor:
    """The last d_conv - 1 inputs of the convolution (B, d_conv - 1, d_inner) as a ring for turn 0."""
    return torch.cat([conv.float(), conv.new_zeros(conv.shape[0], 1, conv.shape[2], dtype=torch.float32)], 1)


def mamba_layer(stream: Tensor, weights: LayerWeights, state: LayerState, turn: Tensor) -> None:
    """Adds a layer's output for one token to the stream.

    Args:
        stream: (B, d_model), fp32, changed in place.
        weights: of the layer.
        state: of the layer, changed in place.
        turn: (), int64, how many tokens the state has taken in since `ring_of`.
    """
    inner, rank = weights.dt_proj.shape
    states, batch = weights.A.shape[1], stream.shape[0]
    p = _normed_product(stream, weights.norm, weights.eps, weights.in_proj)
    y = stream.new_empty((batch, inner))
    block, chunk = 32, min(256, triton.next_power_of_2(inner))  # few turns of a loop that waits for memory each time
    triton_kernels.mix_kernel[(triton.cdiv(inner, block), batch)](
        p, state.ring, weights.taps, weights.taps if weights.conv_bias is None else weights.conv_bias,
        weights.x_proj, weights.dt_proj, weights.dt_bias, weights.A, weights.D, state.scan, y, turn,
        rank, states, inner=inner, TAPS=weights.taps.shape[1], HAS_BIAS=weights.conv_bias is not None, BLOCK=block,
        CHUNK=chunk, RANK=triton.next_power_of_2(rank), N=triton.next_power_of_2(states), num_warps=8,
    )  # fmt: skip
    rows, width = weights.out_proj.shape
    padded, each = _tile(width)
    triton_kernels.added_product_kernel[(triton.cdiv(rows, each), batch)](
        y, weights.out_proj, stream, width, rows, WIDTH=padded, ROWS=each, num_warps=4
    )


def head_logits(stream: Tensor, norm: Tensor, eps: float, head: Tensor) -> Tensor:
    """(B, V) fp32: head (V, d_model) times RMSNorm(stream)."""
    return _normed_product(stream, norm, eps, head)


def draw_tokens(
    logits: Tensor,
    barred: Tensor,
    done: Tensor,
    token: Tensor,
    turn: Tensor,
    seed: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float,
    pad: int,
) -> None:
    """Draws one token per row into `token` (B,), int64; the same seed and turn draw the same.

    Args:
        logits: (B, V), fp32, V at most `LARGEST_VOCABULARY`.
        barred: (V,), fp32, added to them: -inf for tokens that must not be drawn.
        done: (B,), bool; these rows get `pad`.
        token: where the result goes.
        turn: (), int64.
        seed: (), int64, of a counter-based generator (Philox).
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: as in `Sampling`, as is `top_p`.
        top_p: as in `Sampling`.
        pad: the id of ended rows.
    """
    batch, vocabulary = logits.shape
    triton_kernels.draw_kernel[(batch,)](
        logits, barred, done, token, turn, seed, vocabulary, float(temperature or 1.0), float(top_p),
        vocabulary if top_k is None else top_k, pad,
        V=triton.next_power_of_2(vocabulary), GREEDY=temperature == 0, num_warps=1,
    )  # fmt: skip


def _normed_product(stream: Tensor, norm: Tensor, eps: float, weight: Tensor) -> Tensor:
    rows, width = weight.shape
    out = stream.new_empty((stream.shape[0], rows))
    padded, each = _tile(width)
    triton_kernels.normed_product_kernel[(triton.cdiv(rows, each), stream.shape[0])](
        stream, norm, weight, out, width, rows, eps, WIDTH=padded, ROWS=each, num_warps=4
    )
    return out


def _tile(width: int) -> tuple[int, int]:
    padded = triton.next_power_of_2(width)
    return padded, max(1, _ELEMENTS // padded)
