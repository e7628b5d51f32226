"""Stacked blocks with norms and residuals, and the language models on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genomamba.errors import ConfigError
from genomamba.genome import alphabet
from genomamba.kernels.selective_scan import Impl
from genomamba.model.block import Block, make_norm
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import MambaMixer, MambaState
from genomamba.model.norm import RMSNorm
from genomamba.model.strands import at, partner, walls

__all__ = [
    "Backbone",
    "Block",
    "CausalLM",
    "LanguageModel",
    "MambaMixer",
    "MambaState",
    "MaskedLM",
    "RMSNorm",
    "base_log_probability",
]


_NO_BASE = -100


class Strands(NamedTuple):
    """Hidden states of both strands, each in its own reading direction."""

    given: Tensor  # (B, L, d_model), of the strand that was given
    other: Tensor  # (B, L, d_model), of its reverse complement
    partner: Tensor  # (B, L): where on the other strand a token's partner stands
    swapped: bool  # which of the two the model calls the first: with an odd number of swaps, the other


class Backbone(nn.Module):
    """ids (B, L) → hidden (B, L, d_model); twice as wide where the model is equivariant to strands.

    Attributes:
        activation_checkpointing: recompute blocks, all but the last few, in the backward pass instead of keeping
            their activations; less memory, about a third more time.
    """

    complement: Tensor

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.embedding = nn.Embedding(config.padded_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, impl, mixer) for mixer in config.mixers)
        self.norm_f = make_norm(config, impl)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("complement", complement_ids(config), persistent=False)

    def forward(
        self,
        ids: Tensor,
        state: Sequence[Any] | None = None,
        reset: Tensor | None = None,
        length: Tensor | None = None,
        *,
        final_state: bool = True,
    ) -> tuple[Tensor, list[Any]]:
        """Runs the blocks.

        Args:
            ids: (B, L), any integer dtype.
            state: what the segment before this one returned, one per block; only for causal models.
            reset: bool (B, L), True at the first token of each packed sequence.
            length: (B,), tokens of each row that are not padding on its right. Causal models need none;
                others see padding as part of the sequence without it.
            final_state: whether the states after the last token are wanted.

        Returns:
            normed hidden states and, if wanted, the state after the last token, one per block. Of an equivariant model
            the hidden states of both strands stand side by side, (B, L, 2 d_model), token by token.
        """
        if self.config.rc_equivariant:
            if state is not None:
                raise ValueError("a model of both strands has no state to continue from")
            strands = self.strands(ids, reset, length)
            other = at(strands.other, strands.partner)
            both = [other, strands.given] if strands.swapped else [strands.given, other]
            return torch.cat(both, -1), [None] * len(self.layers)
        return self._one_strand(ids, state, self._reset(ids, reset, length), final_state)

    def strands(self, ids: Tensor, reset: Tensor | None = None, length: Tensor | None = None) -> Strands:
        """Hidden states of ids and of their reverse complement; arguments as in `forward`.

        Equivariance is exact by construction: the other strand's ids make the same two calls in the other
        order. The published order of strands that are swapped before each block (Caduceus' fused norm) is
        the same as leaving each strand where it is and mirroring every second block, the first included.
        """
        reset = walls(ids, reset, length)
        index = partner(ids, reset)
        other = self.complement[ids.long().gather(1, index)]
        swapped = self.config.rc_strand_order == "swapped" and len(self.layers) % 2 == 1
        given, paired = (self._one_strand(strand, None, reset, False)[0] for strand in (ids, other))
        return Strands(given, paired, index, swapped)

    def given_strand(self, ids: Tensor, reset: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """Hidden states (B, L, d_model) of ids as they stand, whatever the model does with the other strand."""
        return self._one_strand(ids, None, self._reset(ids, reset, length), False)[0]

    def _reset(self, ids: Tensor, reset: Tensor | None, length: Tensor | None) -> Tensor | None:
        return reset if self.config.is_causal else walls(ids, reset, length)

    def _one_strand(
        self, ids: Tensor, state: Sequence[Any] | None, reset: Tensor | None, final_state: bool
    ) -> tuple[Tensor, list[Any]]:
        x = self.embedding(ids.long())
        swaps = self.config.rc_equivariant and self.config.rc_strand_order == "swapped"
        residual: Tensor | None = None
        states: list[Any] = []
        again = self.activation_checkpointing and torch.is_grad_enabled()
        together = self._computed_together(x, final_state) if again and not swaps else 1

        def run(first: int, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None, list[Any]]:
            after = []
            for index in range(first, min(first + together, len(self.layers))):
                before = None if state is None else state[index]
                mirrored = swaps and index % 2 == 0
                x, residual, left = self.layers[index](x, residual, before, reset, mirrored, final_state, again)
                after.append(left)
            return x, residual, after

        for first in range(0, len(self.layers), together):
            # The backward begins with the last ones: to compute them again would spare no memory.
            if again and first + together < len(self.layers):
                x, residual, after = checkpoint(run, first, x, residual, use_reentrant=False)
                if residual is not None and (x.dtype == residual.dtype or torch.is_autocast_enabled(x.device.type)):
                    x, residual = residual + x, None  # one tensor to keep, not two
            else:
                x, residual, after = run(first, x, residual)
            states += after
        mirrored = swaps and len(self.layers) % 2 == 1
        x, _ = self.norm_f(x, residual, mirrored)
        return (x.flip(-1) if mirrored else x), states

    def _computed_together(self, x: Tensor, final_state: bool) -> int:
        """Blocks between two places at which activation checkpointing keeps the stream."""
        little = not final_state and all(isinstance(b, Block) and b.runs_as_one(x) for b in self.layers)
        return computed_together(len(self.layers)) if little else 1


def computed_together(blocks: int) -> int:
    """How many of so many blocks activation checkpointing computes again at a time where they run as one operator.

    Such a block keeps little more than the stream by itself and gains nothing from being computed again alone;
    of n, √n at a time leave the least (Chen et al. 2016, section 4.2).
    """
    return round(blocks**0.5)


class TokenHead(nn.Linear):
    """hidden → logits over the vocabulary; of both strands' hidden states, the sum of what each says."""

    complement: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.d_model, config.padded_vocab_size, bias=False)
        self.register_buffer("complement", complement_ids(config), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d_model) or, both strands side by side, (..., 2 d_model) → (..., padded vocabulary)."""
        if hidden.shape[-1] == self.in_features:
            return super().forward(hidden)
        first, second = hidden.chunk(2, dim=-1)
        return super().forward(first) + super().forward(second)[..., self.complement]

    def of_strands(self, strands: Strands) -> Tensor:
        """The same from hidden states that are not yet side by side; exactly equivariant."""
        given, other = super().forward(strands.given), at(super().forward(strands.other), strands.partner)
        return other + given[..., self.complement] if strands.swapped else given + other[..., self.complement]


class LanguageModel(nn.Module):
    """A backbone and a head that speaks of tokens."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, impl)
        self.lm_head = TokenHead(config)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, ids: Tensor, reset: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """ids (B, L) → logits (B, L, padded vocabulary); arguments as in `Backbone.forward`."""
        if self.config.rc_equivariant:
            return self.lm_head.of_strands(self.backbone.strands(ids, reset, length))
        return self.lm_head(self.backbone(ids, reset=reset, length=length, final_state=False)[0])


class CausalLM(LanguageModel):
    """Predicts each base from those before it: the logits at position t speak of token t + 1.

    Raises:
        ConfigError: the configuration looks ahead.
    """

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        if not config.is_causal:
            raise ConfigError(
                "a causal language model cannot look ahead",
                "train a masked one, or set model.bidirectional and model.rc_equivariant to false",
                field="model.bidirectional" if config.bidirectional else "model.rc_equivariant",
                value=True,
            )
        super().__init__(config, impl)

    def log_likelihood(self, ids: Tensor, reset: Tensor | None = None) -> Tensor:
        """log p(token t | tokens before t) in nats, fp32, (B, L - 1): entry t - 1 belongs to token t.

        The distribution is over the bases A, C, G, T alone; entries of other tokens are meaningless
        and the caller must mask them.
        """
        logits = self(ids, reset)[:, :-1].float()
        return base_log_probability(logits, ids[:, 1:])


class MaskedLM(LanguageModel):
    """Predicts bases that are hidden from it, from what stands on both sides: logits at t speak of token t."""

    def log_likelihood(self, ids: Tensor, target: Tensor, length: Tensor | None = None) -> Tensor:
        """log p(target t | the corrupted ids) in nats, fp32, (B, L); 0 where the target is no base.

        Args:
            ids: what the model sees, (B, L).
            target: what stood there, (B, L).
            length: as in `Backbone.forward`.
        """
        return base_log_probability(self(ids, length=length), target)


def complement_ids(config: ModelConfig) -> Tensor:
    """(padded vocabulary,): each id's id on the other strand."""
    if config.complement is not None:
        return torch.tensor(config.complement)
    table = torch.arange(config.padded_vocab_size)
    known = torch.from_numpy(alphabet.COMPLEMENT.copy())[: config.padded_vocab_size].long()
    table[: len(known)] = torch.where(known < config.padded_vocab_size, known, table[: len(known)])
    return table


def base_log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability in nats of each id among A, C, G, T; 0 where the id is none of them.

    Args:
        logits: (..., V).
        ids: (...).
    """
    bases = slice(alphabet.A, alphabet.T + 1)
    offset = ids.long() - alphabet.A
    target = torch.where((offset >= 0) & (offset < 4), offset, _NO_BASE)
    # Not by gather, whose deterministic backward on a GPU sorts all positions.
    nats = F.cross_entropy(
        logits[..., bases].float().flatten(0, -2), target.flatten(), reduction="none", ignore_index=_NO_BASE
    )
    return -nats.view(ids.shape)
