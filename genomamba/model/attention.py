"""Softmax attention with rotary positions, for hybrids: causal or not, optionally within a window, cached."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.selective_scan import Impl
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import scale_output
from genomamba.model.mixer import Mixer


class AttentionState(NamedTuple):
    """Keys and values of earlier tokens: all of them, or the last window - 1."""

    key: Tensor  # (B, H, T, headdim), rotated
    value: Tensor  # (B, H, T, headdim)
    seen: Tensor  # bool (B, T): whether the token belongs to the sequence that goes on
    position: int  # of the next token


class AttentionMixer(Mixer):
    """Multi-head attention (Vaswani et al. 2017) with rotary positions (Su et al. 2021) through torch's SDPA."""

    in_parts = 3  # queries, keys, values

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.headdim, self.window, self.rotary_base = config.headdim, config.window, config.rotary_base
        self.causal = not config.bidirectional
        self.d_mixed = config.d_model
        self.in_proj = nn.Linear(config.d_model, 3 * config.d_model, bias=config.bias)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        scale_output(self.out_proj, config)

    def inner(
        self, p: Tensor, state: AttentionState | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, AttentionState | None]:
        if state is not None and (reverse or not self.causal):
            raise ValueError("attention carries keys and values forward only")
        batch, length, _ = p.shape
        q, k, v = (t.unflatten(-1, (-1, self.headdim)).transpose(1, 2) for t in p.chunk(3, dim=-1))
        start = 0 if state is None else state.position
        q, k = self._rotate(q, start), self._rotate(k, start)
        seen = torch.ones(batch, 0, dtype=torch.bool, device=p.device)
        if state is not None:
            k, v, seen = torch.cat([state.key, k], 2), torch.cat([state.value, v], 2), state.seen
        if reset is None and self.window is None and state is None:
            if self.causal and reverse:
                mask = torch.ones(length, length, dtype=torch.bool, device=p.device).triu()
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            else:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            mask = self._mask(length, seen, reset, reverse)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
        return y.transpose(1, 2).flatten(2), self._after(k, v, seen, reset, start, length) if self.causal else None

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        """Pairs of channels (i, i + headdim / 2) turned by position · base^(-2i / headdim); angles in fp64."""
        half = self.headdim // 2
        speed = self.rotary_base ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
        angle = torch.arange(start, start + x.shape[2], dtype=torch.float64, device=x.device)[:, None] * speed
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)

    def _mask(self, length: int, seen: Tensor, reset: Tensor | None, reverse: bool) -> Tensor:
        """bool (B, L, T + L): which keys each token sees, the cached ones first."""
        cached = seen.shape[1]
        ahead = torch.arange(-cached, length, device=seen.device) - torch.arange(length, device=seen.device)[:, None]
        allowed = torch.ones_like(ahead, dtype=torch.bool)
        if self.causal:
            allowed = ahead >= 0 if reverse else ahead <= 0
        if self.window is not None:
            allowed = allowed & (ahead.abs() < self.window)
        batch = seen.shape[0]
        number = seen.new_zeros(batch, length).long() if reset is None else reset.cumsum(1)
        old = torch.where(seen, number.new_zeros(()), number.new_full((), -1))  # the open sequence has number 0
        return allowed & (number.unsqueeze(2) == torch.cat([old, number], 1).unsqueeze(1))

    def _after(
        self, k: Tensor, v: Tensor, seen: Tensor, reset: Tensor | None, start: int, length: int
    ) -> AttentionState:
        number = seen.new_zeros(seen.shape[0], length).long() if reset is None else reset.cumsum(1)
        last = number[:, -1:] if length else number.new_zeros(seen.shape[0], 1)
        seen = torch.cat([seen & (last == 0), number == last], 1)
        keep = k.shape[2] if self.window is None else min(k.shape[2], self.window - 1)
        drop = k.shape[2] - keep
        return AttentionState(k[:, :, drop:], v[:, :, drop:], seen[:, drop:], start + length)
