"""S4D (Gu et al. 2022), a diagonal state-space model whose parameters do not depend on the input, for comparison.

``h_t = exp(dt A) h_{t-1} + (exp(dt A) - 1) / A · u_t``, ``y_t = 2 Re(C h_t) + D u_t``, per channel, N complex states.
The same at every t, the scan is a convolution with ``K_l = 2 Re(C (exp(dt A) - 1) / A · exp(l dt A))``, done by FFT.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.selective_scan import Impl
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import scale_output
from genomamba.model.mixer import Mixer, behind_first_wall, walled_pieces

PIECE = 2048  # tokens convolved at once: bounds the memory of kernels (d_inner, PIECE) and powers (d_inner, N, PIECE)


class S4dMixer(Mixer):
    """Gated like Mamba; its state is (B, d_inner, d_state), complex. Initial A is S4D-Lin: -1/2 + iπn."""

    in_parts = 2  # u and z

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        channels, states = config.d_inner, config.d_state
        self.d_mixed = channels
        self.in_proj = nn.Linear(config.d_model, 2 * channels, bias=config.bias)
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = nn.Parameter(torch.rand(channels) * (high - low) + low)
        self.A_log = nn.Parameter(torch.full((channels, states), 0.5).log())  # log of -Re A
        self.A_imag = nn.Parameter((math.pi * torch.arange(states)).expand(channels, states).clone())
        self.C = nn.Parameter(torch.randn(channels, states, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, config.d_model, bias=config.bias)
        scale_output(self.out_proj, config)

    def inner(self, p: Tensor, state: Tensor | None, reset: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        u, z = p.chunk(2, dim=-1)
        wide = u if u.dtype == torch.float64 else u.float()
        A = torch.complex(-torch.exp(self.A_log), self.A_imag)
        log_decay = torch.exp(self.log_dt)[:, None] * A  # (D, N)
        gain = 2 * torch.view_as_complex(self.C) * torch.expm1(log_decay) / A
        h = log_decay.new_zeros(u.shape[0], *log_decay.shape) if state is None else state
        ys: list[Tensor] = []
        for start, end, walled in walled_pieces(reset, u.shape[1], reverse):
            if walled is not None:
                h = torch.where(walled[:, None, None], h.new_zeros(()), h)
            cuts = range(start, end, PIECE)
            for first in reversed(cuts) if reverse else cuts:
                piece = wide[:, first : min(first + PIECE, end)]
                y, h = _convolve(piece.flip(1) if reverse else piece, log_decay, gain, h)
                ys.append(y.flip(1) if reverse else y)
        h = behind_first_wall(reset, h, reverse)
        y = torch.cat(ys[::-1] if reverse else ys, 1) if ys else wide
        return ((y + self.D * wide) * F.silu(z)).to(p.dtype), h


def _convolve(u: Tensor, log_decay: Tensor, gain: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One piece: u (B, L, D), state h (B, D, N) before it; returns y without skip and the state after it."""
    length = u.shape[1]
    powers = _powers(log_decay, length)  # (D, N, L)
    kernel = torch.einsum("dn,dnl->dl", gain, powers).real
    size = 2 * length
    y = torch.fft.irfft(torch.fft.rfft(u.mT, size) * torch.fft.rfft(kernel, size), size)[..., :length]
    y = y + torch.einsum("bdn,dn,dnl->bdl", h, gain * torch.exp(log_decay), powers).real
    whole = torch.exp(length * log_decay.to(torch.complex128)).to(powers.dtype)
    h = whole * h + torch.einsum("bld,dnl->bdn", u.to(powers.dtype), powers.flip(-1))
    return y.mT, h


def _powers(log_decay: Tensor, length: int) -> Tensor:
    """exp(l log_decay) for all l < length, (D, N, length), as products of few, whose phases are taken in fp64.

    In fp32 the phase of a slow decay that turns fast would be off by 1e-4 after a thousand steps.
    """
    exponent = log_decay.to(torch.complex128).unsqueeze(-1)
    step = 64
    fine = torch.exp(exponent * torch.arange(step, device=exponent.device))
    coarse = torch.exp(exponent * torch.arange(0, length, step, device=exponent.device))
    both = coarse.to(log_decay.dtype).unsqueeze(-1) * fine.to(log_decay.dtype).unsqueeze(-2)
    return both.flatten(-2)[..., :length]
