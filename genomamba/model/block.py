"""One block: norm, mixer, and where configured a gated MLP, on a residual stream."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.mamba_block import mamba_block
from genomamba.model.attention import AttentionMixer
from genomamba.model.bidirectional import BidirectionalMixer
from genomamba.model.config import ModelConfig
from genomamba.model.gru import GruMixer
from genomamba.model.mamba import MambaMixer, scale_output
from genomamba.model.mamba2 import Mamba2Mixer
from genomamba.model.mixer import Mixer
from genomamba.model.norm import LayerNorm, RMSNorm
from genomamba.model.s4d import S4dMixer

# Bytes of a block's projected input that are worked on at a time; its memory beside what it keeps is five times that.
ROOMY, THRIFTY = 2 << 30, 1 << 29

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
        self.depth = config.n_layer
        self.impl: Impl = impl
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
        final_state: bool = True,
        thrifty: bool = False,
    ) -> tuple[Tensor, Tensor, Any]:
        """One block on the stream ``residual + x``.

        Args:
            x: what the block before returned, (B, L, d_model).
            residual: the stream it is to be added to, (B, L, d_model), fp32, or None.
            state: of the mixer, from the segment before this one.
            reset: bool (B, L), True at the first token of each packed sequence.
            mirrored: do as if the stream were reversed in time and channels before, and again after.
            final_state: whether the mixer's state is wanted; without it a GPU runs a Mamba block as one
                operator, which keeps less.
            thrifty: let that operator work in short pieces of L, which takes more launches and less memory.

        Returns:
            what is to be added to the stream, the stream, and the mixer's state if wanted.
        """
        readers = None
        if not (final_state or mirrored) and state is None:
            readers = self._readers(x)
        if readers is not None:
            x, residual, state = *self._as_one(x, residual, reset, readers, thrifty), None
        else:
            x, residual = self.norm(x, residual, mirrored)
            x, state = self.mixer(x.flip(-1) if mirrored else x, state, reset, mirrored)
        x = self._regularise(x.flip(-1) if mirrored else x)
        if self.norm2 is not None and self.mlp is not None:
            x, residual = self.norm2(x, residual, mirrored)
            x = self.mlp(x.flip(-1) if mirrored else x)
            x = self._regularise(x.flip(-1) if mirrored else x)
        return x, residual, state

    def runs_as_one(self, x: Tensor) -> bool:
        """Whether the mixer and its norm run as one operator where no state comes in or is wanted."""
        return self._readers(x) is not None

    def _readers(self, x: Tensor) -> list[MambaMixer] | None:
        """The Mamba mixers, one per direction, if Triton runs them and their weights are all there is to it."""
        # torch.compile sees the operators one by one.
        if torch.compiler.is_compiling() or resolve_impl(self.impl, x.device, given=(x,)) != "triton":
            return None
        mixer = self.mixer
        both = isinstance(mixer, BidirectionalMixer) and mixer.tied and mixer.strategy == "add"
        found = [mixer.ahead, mixer.back] if both else [mixer]
        readers = [reader for reader in found if isinstance(reader, MambaMixer)]
        if len(readers) < len(found) or not isinstance(self.norm, RMSNorm):
            return None
        first = readers[0]
        if len(readers) > 1 and first.out_proj.bias is not None:
            return None  # each direction would bring it
        linears = [first.in_proj, first.out_proj, *(p for r in readers for p in (r.x_proj, r.dt_proj))]
        # An adapter or a hook on a projection must run.
        plain = all(type(m) is nn.Linear and not (m._forward_hooks or m._forward_pre_hooks) for m in linears)
        return readers if plain else None

    def _as_one(
        self, x: Tensor, residual: Tensor | None, reset: Tensor | None, readers: list[MambaMixer], thrifty: bool
    ) -> tuple[Tensor, Tensor]:
        first = readers[0]
        assert isinstance(self.norm, RMSNorm)
        return mamba_block(
            x,
            residual,
            self.norm.weight,
            first.in_proj.weight,
            first.in_proj.bias,
            [reader.direction for reader in readers],
            [index == 1 for index in range(len(readers))],
            first.out_proj.weight,
            first.out_proj.bias,
            eps=self.norm.eps,
            reset=reset,
            slab_bytes=THRIFTY if thrifty else ROOMY,
            depth=self.depth,
            impl=self.impl,
        )

    def _regularise(self, x: Tensor) -> Tensor:
        """Dropout, and stochastic depth (Huang et al. 2016): a row skips the branch, the others are scaled."""
        x = self.dropout(x)
        if not (self.training and self.drop_path):
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)
