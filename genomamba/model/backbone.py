"""Stacked blocks with norms and residuals, and the language model on top of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genomamba.genome import alphabet
from genomamba.kernels.rms_norm import rms_norm
from genomamba.kernels.selective_scan import Impl
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import MambaMixer, MambaState


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019) of a stream that is summed in fp32."""

    def __init__(self, d_model: int, eps: float, impl: Impl) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps
        self.impl: Impl = impl

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(norm(residual + x), residual + x in fp32), both of x's shape."""
        return rms_norm(x, self.weight, eps=self.eps, residual=residual, impl=self.impl)


class Block(nn.Module):
    """Adds what came before to the residual, norms it, mixes it."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps, impl)
        self.mixer = MambaMixer(config, impl)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, residual: Tensor | None, state: MambaState | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, MambaState]:
        x, residual = self.norm(x, residual)
        x, state = self.mixer(x, state, reset)
        return self.dropout(x), residual, state


class Backbone(nn.Module):
    """ids (B, L) → hidden (B, L, d_model).

    Attributes:
        activation_checkpointing: recompute each block in the backward pass instead of keeping its
            activations; less memory, about a third more time.
    """

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.embedding = nn.Embedding(config.padded_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, impl) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps, impl)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(
        self, ids: Tensor, state: Sequence[MambaState] | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, list[MambaState]]:
        """Runs the blocks.

        Args:
            ids: (B, L), any integer dtype.
            state: what the segment before this one returned, one per block.
            reset: bool (B, L), True at the first token of each packed sequence.

        Returns:
            normed hidden states (B, L, d_model) and the state after the last token, one per block.
        """
        x = self.embedding(ids.long())
        residual: Tensor | None = None
        states: list[MambaState] = []
        for index, layer in enumerate(self.layers):
            args = (x, residual, None if state is None else state[index], reset)
            if self.activation_checkpointing and torch.is_grad_enabled():
                x, residual, after = checkpoint(layer, *args, use_reentrant=False)
            else:
                x, residual, after = layer(*args)
            states.append(after)
        return self.norm_f(x, residual)[0], states


class CausalLM(nn.Module):
    """Predicts each base from those before it."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, impl)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, ids: Tensor, reset: Tensor | None = None) -> Tensor:
        """ids (B, L) → logits (B, L, padded vocabulary); position t speaks of token t + 1."""
        return self.lm_head(self.backbone(ids, reset=reset)[0])

    def log_likelihood(self, ids: Tensor, reset: Tensor | None = None) -> Tensor:
        """log p(token t | tokens before t) in nats, fp32, (B, L - 1): entry t - 1 belongs to token t.

        The distribution is over the bases A, C, G, T alone; entries of other tokens are meaningless
        and the caller must mask them.
        """
        logits = self(ids, reset)[:, :-1].float()
        return base_log_probability(logits, ids[:, 1:])


def base_log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability in nats of each id among A, C, G, T; 0 where the id is none of them.

    Args:
        logits: (..., V).
        ids: (...).
    """
    bases = slice(alphabet.A, alphabet.T + 1)
    offset = ids.long() - alphabet.A
    is_base = (offset >= 0) & (offset < 4)
    picked = F.log_softmax(logits[..., bases].float(), dim=-1).gather(-1, offset.clamp(0, 3).unsqueeze(-1)).squeeze(-1)
    return torch.where(is_base, picked, picked.new_zeros(()))
