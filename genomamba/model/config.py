"""What a model is made of. Knows no torch, so that command-line help stays quick."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genomamba.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """A causal Mamba language model over bases.

    Attributes:
        d_model: channels of the residual stream, D.
        n_layer: number of blocks.
        d_state: states per channel, N.
        d_conv: taps of the causal convolution.
        expand: d_inner = expand * d_model.
        dt_rank: rank of the projection to dt; null means ceil(d_model / 16).
        dt_min: smallest initial step size softplus(dt bias).
        dt_max: largest initial step size.
        dropout: probability of dropping a channel of a block's output in training.
        norm_eps: epsilon of RMSNorm.
        vocab_size: ids that the alphabet uses.
        pad_vocab_size_multiple: the embedding has vocab_size rounded up to this.
        tie_embeddings: whether the output head is the embedding.
    """

    d_model: int = 128
    n_layer: int = 4
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | None = None
    dt_min: float = 0.001
    dt_max: float = 0.1
    dropout: float = 0.0
    norm_eps: float = 1e-5
    vocab_size: int = 12
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in ("d_model", "n_layer", "d_state", "d_conv", "expand", "vocab_size", "pad_vocab_size_multiple"):
            if getattr(self, field) < 1:
                raise ConfigError(
                    "it must be at least 1", "raise it", field=f"model.{field}", value=getattr(self, field)
                )
        if self.dt_rank is not None and self.dt_rank < 1:
            raise ConfigError(
                "it must be at least 1", "raise it or set null", field="model.dt_rank", value=self.dt_rank
            )
        if not 0 < self.dt_min <= self.dt_max:
            raise ConfigError("0 < dt_min <= dt_max must hold", "change one", field="model.dt_min", value=self.dt_min)
        if not 0 <= self.dropout < 1:
            raise ConfigError("it must lie in [0, 1)", "change it", field="model.dropout", value=self.dropout)

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def dt_rank_resolved(self) -> int:
        return self.dt_rank if self.dt_rank is not None else math.ceil(self.d_model / 16)

    @property
    def padded_vocab_size(self) -> int:
        multiple = self.pad_vocab_size_multiple
        return -(-self.vocab_size // multiple) * multiple


@dataclass(frozen=True)
class VariantHeadConfig:
    """Attributes:
    d_hidden: width of the head's hidden layer.
    dropout: applied to its features in training.
    flank: bases on either side of the allele whose hidden states are pooled.
    """

    d_hidden: int = 64
    dropout: float = 0.1
    flank: int = 16
