"""Mamba-2's scan through matrix products (Dao & Gu 2024, section 6 and listing 1).

L is cut into chunks of T tokens. Within a chunk the scan is a masked attention, ``y = ((C Bᵀ) ∘ M) (dt x)`` with
``M_ij`` the decay from token j to token i; between chunks only a state passes. Products of T × T matrices do the
work, and the one loop is over L / T states.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64


def ssd_chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    chunk: int = CHUNK,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `api.ssd`; dt is the step size itself; all tensors share one dtype. No skip connection.

    Args:
        chunk: tokens per chunk, T; a sequence shorter than it is one chunk of its own length.
        tf32: cut the operands of every product to TF32, as tensor cores do.
    """
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    per_group = heads // groups
    shape = (batch, groups, per_group, width, states)
    h = x.new_zeros(shape) if initial_state is None else initial_state.reshape(shape)
    if not length:
        return torch.zeros_like(x), h.reshape(batch, heads, width, states)
    chunk = min(chunk, length)
    pad = -length % chunk

    def cut(t: Tensor) -> Tensor:  # (B, L, ...) → (B, chunks, T, ...); what is added has dt = 0: it changes no state
        return F.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)).unflatten(1, (-1, chunk))

    x, dt, B, C = cut(x).unflatten(3, (groups, per_group)), cut(dt).unflatten(3, (groups, per_group)), cut(B), cut(C)
    # Decays are differences of running sums, which would lose the digits of a small one behind large ones in fp32.
    step = dt.double() * A.double().unflatten(0, (groups, per_group))  # (B, c, T, G, K): log decay of each token
    before = step.cumsum(2)
    total = before[:, :, -1:]
    # What a state passes through on its way into token t (that token's decay included), and from t to the far end.
    entering = total - before + step if reverse else before
    leaving = before - step if reverse else total - before
    between = entering.unsqueeze(3) - entering.unsqueeze(2)  # (B, c, T to, T from, G, K)
    sees = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device)
    sees = (sees.triu() if reverse else sees.tril())[None, None]
    inflow, weight, through = (torch.exp(t).to(x.dtype) for t in (entering, leaving, total[:, :, 0]))
    if reset is not None:
        number = cut(reset).cumsum(2)  # of the sequence within its chunk; 0 before any wall
        sees = sees & (number.unsqueeze(3) == number.unsqueeze(2))
        joins_first, joins_last = number == 0, number == number[:, :, -1:]
        enters, leaves = (joins_last, joins_first) if reverse else (joins_first, joins_last)
        inflow, weight = inflow * enters[..., None, None], weight * leaves[..., None, None]
        through = through * joins_first[:, :, -1, None, None]
    decay = torch.exp(between.masked_fill(~sees[..., None, None], -torch.inf)).to(x.dtype)

    operand = _as_tf32 if tf32 else _as_is
    score = torch.einsum("bcign,bcjgn->bcijg", operand(C), operand(B))
    score = score.unsqueeze(-1) * decay * dt.unsqueeze(2)
    y = torch.einsum("bcijgk,bcjgkp->bcigkp", operand(score), operand(x))

    held = B.unsqueeze(4) * (weight * dt).unsqueeze(-1)  # (B, c, T, G, K, N)
    added = torch.einsum("bcjgkn,bcjgkp->cbgkpn", operand(held), operand(x))
    order = range(added.shape[0])
    incoming: list[Tensor] = [h] * len(order)
    for c in reversed(order) if reverse else order:
        incoming[c] = h
        h = through[:, c, ..., None, None] * h + added[c]
    y = y + inflow.unsqueeze(-1) * torch.einsum("bcign,cbgkpn->bcigkp", operand(C), operand(torch.stack(incoming)))
    y = y.reshape(batch, -1, heads, width)[:, :length]
    return y, h.reshape(batch, heads, width, states)


def _as_is(t: Tensor) -> Tensor:
    return t


def _as_tf32(t: Tensor) -> Tensor:
    """fp32 with the lower 13 of its 23 bits of fraction cut off; gradients pass."""
    cut = (t.detach().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
    return t + (cut - t).detach()  # exact: the difference is the bits that go
