"""The Mamba mixer: projection, short convolution, selective scan, gate, projection.

Names follow the paper (Gu & Dao 2023, section 3.4, figure 3) and its code, so that weights interchange.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.mamba_block import Direction
from genomamba.kernels.selective_scan import Impl, selective_scan
from genomamba.model.config import ModelConfig
from genomamba.model.mixer import Mixer


class MambaState(NamedTuple):
    """What a mixer carries from one segment to the next; its size does not depend on L."""

    conv: Tensor  # (B, d_conv - 1, d_inner): the last inputs of the convolution
    scan: Tensor  # (B, d_inner, d_state), fp32


class MambaMixer(Mixer):
    """The selective scan between its projections: causal, linear in L."""

    in_parts = 2  # x and z

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        d_inner, rank, states = config.d_inner, config.dt_rank_resolved, config.d_state
        self.impl: Impl = impl
        self.d_mixed = d_inner
        self.split = (rank, states, states)
        self.in_proj = nn.Linear(config.d_model, 2 * d_inner, bias=config.bias)
        # A holder of weights: (d_inner, 1, d_conv).
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner, bias=config.conv_bias)
        self.x_proj = nn.Linear(d_inner, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, d_inner)
        self.A_log = nn.Parameter(torch.empty(d_inner, states))
        self.D = nn.Parameter(torch.empty(d_inner))
        self.out_proj = nn.Linear(d_inner, config.d_model, bias=config.bias)
        self.reset_parameters(config)

    @torch.no_grad()
    def reset_parameters(self, config: ModelConfig) -> None:
        """Initial values of the paper, section 3.6 and its code.

        A is S4D-real, A_n = -n; softplus(dt bias) is log-uniform in [dt_min, dt_max]; the output projection
        is scaled by 1/√n_layer, so that the residual stream keeps its size with depth (GPT-2's rule).
        """
        self.A_log.copy_(torch.arange(1, config.d_state + 1, dtype=torch.float32).log().expand_as(self.A_log))
        self.D.fill_(1.0)
        rank = config.dt_rank_resolved
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        self.dt_proj.bias.copy_(initial_dt_bias(config, config.d_inner))
        scale_output(self.out_proj, config)

    @property
    def direction(self) -> Direction:
        """The weights between the projections."""
        return Direction(
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
        )

    def inner(
        self, p: Tensor, state: MambaState | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, MambaState]:
        u, z = p.chunk(2, dim=-1)
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
        dt, B, C = self.x_proj(u).split(self.split, dim=-1)
        y, scan_state = selective_scan(
            u,
            F.linear(dt, self.dt_proj.weight),  # its bias is added inside the scan, in fp32
            -torch.exp(self.A_log.float()),
            B,
            C,
            self.D.float(),
            z,
            self.dt_proj.bias.float(),
            dt_softplus=True,
            initial_state=None if state is None else state.scan,
            reset=reset,
            reverse=reverse,
            return_final_state=True,
            impl=self.impl,
        )
        return y, MambaState(conv_state, scan_state)


def initial_dt_bias(config: ModelConfig, size: int) -> Tensor:
    """(size,): softplus of it is log-uniform in [dt_min, dt_max]."""
    low, high = math.log(config.dt_min), math.log(config.dt_max)
    dt = torch.exp(torch.rand(size) * (high - low) + low)
    return dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus


@torch.no_grad()
def scale_output(out_proj: nn.Linear, config: ModelConfig) -> None:
    """Initial values such that the residual stream keeps its size with depth."""
    nn.init.kaiming_uniform_(out_proj.weight, a=math.sqrt(5))
    out_proj.weight.div_(math.sqrt(config.n_layer))
    if out_proj.bias is not None:
        nn.init.zeros_(out_proj.bias)
