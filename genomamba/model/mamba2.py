"""The Mamba-2 mixer: one projection to everything, short convolution, SSD, gated norm, projection.

Names follow the paper (Dao & Gu 2024, section 7, figure 6) and its code, so that weights interchange.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.mamba2_inner import Inner, mamba2_inner
from genomamba.kernels.selective_scan import Impl
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
    """A holder of the gated norm's weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Mamba2Mixer(Mixer):
    """SSD between its projections: multi-head, grouped B and C, causal, linear in L."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        scanned, groups, states = config.d_scanned, config.ngroups, config.d_state
        heads, convolved = scanned // config.headdim, scanned + 2 * groups * states
        mlp = config.d_inner - scanned
        self.impl: Impl = impl
        # Equations know nothing of rounding, and a kernel asked for by name has its own.
        self.tf32 = config.ssd_tf32 and impl not in ("reference", "triton")
        self.chunk = ORIGINAL_CHUNK if self.tf32 else CHUNK
        self.d_mixed, self.headdim, self.groups, self.states = config.d_inner, config.headdim, groups, states
        self.eps, self.norm_before_gate = config.norm_eps, config.norm_before_gate
        self.dt_limit = (config.dt_limit_min, float("inf") if config.dt_limit_max is None else config.dt_limit_max)
        self.projected = (mlp, mlp, scanned + convolved + heads)  # MLP gate, MLP, and z, (x, B, C), dt
        self.in_proj = nn.Linear(config.d_model, sum(self.projected), bias=config.bias)
        # A holder of weights: (channels, 1, d_conv).
        self.conv1d = nn.Conv1d(convolved, convolved, config.d_conv, groups=convolved, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(initial_dt_bias(config, heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(scanned if config.D_per_channel else heads))
        self.norm = GatedNorm(scanned) if config.gated_norm else None
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.bias)
        scale_output(self.out_proj, config)

    def inner(
        self, p: Tensor, state: Mamba2State | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Mamba2State]:
        mlp = None
        if self.projected[0]:  # a split's gradient is put together again, so there is none where nothing is split off
            mlp_gate, mlp, p = p.split(self.projected, dim=-1)
            mlp = F.silu(mlp_gate) * mlp
        y, *after = mamba2_inner(
            p,
            self.core,
            conv_state=None if state is None else state.conv,
            scan_state=None if state is None else state.scan,
            reset=reset,
            reverse=reverse,
            impl=self.impl,
        )
        if mlp is not None:
            y = torch.cat([mlp, y], dim=-1)
        return y, Mamba2State(*after)

    @property
    def core(self) -> Inner:
        """What stands between the projections."""
        return Inner(
            conv_weight=self.conv1d.weight.squeeze(1),
            conv_bias=self.conv1d.bias,
            dt_bias=self.dt_bias,
            A_log=self.A_log,
            skip=self.D,
            norm_weight=None if self.norm is None else self.norm.weight,
            headdim=self.headdim,
            groups=self.groups,
            states=self.states,
            eps=self.eps,
            norm_before_gate=self.norm_before_gate,
            dt_limit=self.dt_limit,
            chunk=self.chunk,
            tf32=self.tf32,
        )
