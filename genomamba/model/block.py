"""One block: norm, mixer, and where configured a gated MLP, on a residual stream."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.selective_scan import Impl
from genomamba.model.attention import AttentionMixer
from genomamba.model.bidirectional import BidirectionalMixer
from genomamba.model.config import ModelConfig
from genomamba.model.gru import GruMixer
from genomamba.model.mamba import MambaMixer, scale_output
from genomamba.model.mamba2 import Mamba2Mixer
from genomamba.model.mixer import Mixer
from genomamba.model.norm import LayerNorm, RMSNorm
from genomamba.model.s4d import S4dMixer

MIXERS: dict[str, type[Mixer]] = {
    "mamba": MambaMixer,
    "mamba2": Mamba2Mixer,
    "s4d": S4dMixer,
    "attention": AttentionMixer,
    "gru": GruMixer,
}


def make_mixer(name: str, config: ModelConfig, impl: Impl) -> nn.Module:
    """The mixer of that name in the directions that ``config`` asks for."""
    make = partial(MIXERS[name], config, impl)
    # Attention sees both ways by itself; what scans needs one scan for each way.
    return BidirectionalMixer(config, make) if config.bidirectional and name != "attention" else make()


def make_norm(config: ModelConfig, impl: Impl) -> nn.Module:
    """RMSNorm or LayerNorm of d_model channels."""
    if config.rms_norm:
        return RMSNorm(config.d_model, config.norm_eps, impl)
    return LayerNorm(config.d_model, config.norm_eps)


class GatedMlp(nn.Module):
    """``fc2(a · SiLU(b))`` with a, b the halves of ``fc1(x)`` (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, 2 * config.d_mlp, bias=False)
        self.fc2 = nn.Linear(config.d_mlp, config.d_model, bias=False)
        scale_output(self.fc2, config)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(x * F.silu(gate))


class Block(nn.Module):
    """Adds what came before to the residual, norms it, mixes it."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto", mixer: str = "mamba") -> None:
        super().__init__()
        self.norm = make_norm(config, impl)
        self.mixer = make_mixer(mixer, config, impl)
        self.norm2 = make_norm(config, impl) if config.d_mlp else None
        self.mlp = GatedMlp(config) if config.d_mlp else None
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = config.drop_path

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None,
        state: Any,
        reset: Tensor | None,
        mirrored: bool = False,
    ) -> tuple[Tensor, Tensor, Any]:
        """One block on the stream ``residual + x``.

        Args:
            x: what the block before returned, (B, L, d_model).
            residual: the stream it is to be added to, (B, L, d_model), fp32, or None.
            state: of the mixer, from the segment before this one.
            reset: bool (B, L), True at the first token of each packed sequence.
            mirrored: do as if the stream were reversed in time and channels before, and again after.

        Returns:
            what is to be added to the stream, the stream, and the mixer's state.
        """
        x, residual = self.norm(x, residual, mirrored)
        x, state = self.mixer(x.flip(-1) if mirrored else x, state, reset, mirrored)
        x = self._regularise(x.flip(-1) if mirrored else x)
        if self.norm2 is not None and self.mlp is not None:
            x, residual = self.norm2(x, residual, mirrored)
            x = self.mlp(x.flip(-1) if mirrored else x)
            x = self._regularise(x.flip(-1) if mirrored else x)
        return x, residual, state

    def _regularise(self, x: Tensor) -> Tensor:
        """Dropout, and stochastic depth (Huang et al. 2016): a row skips the branch, the others are scaled."""
        x = self.dropout(x)
        if not (self.training and self.drop_path):
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)
