"""The Mamba-2 mixer: one projection to everything, short convolution, SSD, gated norm, projection.

Names follow the paper (Dao & Gu 2024, section 7, figure 6) and its code, so that weights interchange.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.gated_norm import gated_norm
from genomamba.kernels.selective_scan import Impl
from genomamba.kernels.ssd import ssd
from genomamba.kernels.ssd.api import SsdImpl
from genomamba.kernels.ssd.chunked import CHUNK
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import initial_dt_bias, scale_output
from genomamba.model.mixer import Mixer

ORIGINAL_CHUNK = 256


class Mamba2State(NamedTuple):
    """What a mixer carries from one segment to the next; its size does not depend on L."""

    conv: Tensor  # (B, d_conv - 1, d_ssm + 2 ngroups d_state): the last inputs of the convolution
    scan: Tensor  # (B, H, headdim, d_state), fp32


class GatedNorm(nn.Module):
    """RMSNorm within each group of channels, of a gated stream or with the gate after it."""

    def __init__(self, width: int, groups: int, eps: float, norm_before_gate: bool, impl: Impl) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups, self.eps, self.norm_before_gate = groups, eps, norm_before_gate
        self.impl: Impl = impl

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        return gated_norm(
            y,
            z,
            self.weight,
            groups=self.groups,
            eps=self.eps,
            norm_before_gate=self.norm_before_gate,
            impl=self.impl,
        )


class Mamba2Mixer(Mixer):
    """SSD between its projections: multi-head, grouped B and C, causal, linear in L."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        scanned, groups, states = config.d_scanned, config.ngroups, config.d_state
        heads, convolved = scanned // config.headdim, scanned + 2 * groups * states
        mlp = config.d_inner - scanned
        self.impl: Impl = impl
        self.ssd_impl: SsdImpl = "chunked" if impl == "cpu" else impl
        # Equations know nothing of rounding, and a kernel asked for by name has its own.
        self.tf32 = config.ssd_tf32 and impl not in ("reference", "triton")
        self.chunk = ORIGINAL_CHUNK if self.tf32 else CHUNK
        self.d_mixed, self.headdim, self.groups = config.d_inner, config.headdim, groups
        self.dt_limit = (config.dt_limit_min, float("inf") if config.dt_limit_max is None else config.dt_limit_max)
        self.projected = (mlp, mlp, scanned, convolved, heads)  # MLP gate, MLP, z, (x, B, C), dt
        self.split = (scanned, groups * states, groups * states)
        self.in_proj = nn.Linear(config.d_model, sum(self.projected), bias=config.bias)
        # A holder of weights: (channels, 1, d_conv).
        self.conv1d = nn.Conv1d(convolved, convolved, config.d_conv, groups=convolved, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(initial_dt_bias(config, heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(scanned if config.D_per_channel else heads))
        norm = (scanned, groups, config.norm_eps, config.norm_before_gate, impl)
        self.norm = GatedNorm(*norm) if config.gated_norm else None
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.bias)
        scale_output(self.out_proj, config)

    def inner(
        self, p: Tensor, state: Mamba2State | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Mamba2State]:
        mlp_gate, mlp, z, u, dt = p.split(self.projected, dim=-1)
        u, conv_state = causal_conv1d(
            u,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            silu=True,
            initial_state=None if state is None else state.conv,
            reset=reset,
            reverse=reverse,
            return_final_state=True,
            impl=self.impl,
        )
        x, B, C = u.split(self.split, dim=-1)
        D = self.D.float()
        y, scan_state = ssd(
            x.unflatten(-1, (-1, self.headdim)),
            dt,
            -torch.exp(self.A_log.float()),
            B.unflatten(-1, (self.groups, -1)),
            C.unflatten(-1, (self.groups, -1)),
            D.view(-1, self.headdim) if D.numel() == x.shape[-1] else D,
            self.dt_bias.float(),
            dt_softplus=True,
            dt_limit=self.dt_limit,
            initial_state=None if state is None else state.scan,
            reset=reset,
            reverse=reverse,
            return_final_state=True,
            chunk=self.chunk,
            tf32=self.tf32,
            impl=self.ssd_impl,
        )
        y = y.flatten(-2)
        y = self.norm(y, z) if self.norm is not None else y * F.silu(z)
        if mlp.shape[-1]:
            y = torch.cat([F.silu(mlp_gate) * mlp, y], dim=-1)
        return y, Mamba2State(conv_state, scan_state)
