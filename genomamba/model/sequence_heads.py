"""Heads for whole sequences and for every token, on a backbone of any kind."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from genomamba.errors import ConfigError
from genomamba.kernels.selective_scan import Impl
from genomamba.model.backbone import Backbone
from genomamba.model.config import ModelConfig
from genomamba.model.strands import at

Pooling = Literal["mean", "max", "last", "attention"]


class Pool(nn.Module):
    """Hidden states of the real tokens as one vector per row; padding has no part in it.

    Raises:
        ConfigError: no such pooling.
    """

    def __init__(self, d_model: int, how: Pooling) -> None:
        super().__init__()
        if how not in ("mean", "max", "last", "attention"):
            raise ConfigError("no such pooling", "choose mean, max, last or attention", field="pooling", value=how)
        self.how: Pooling = how
        self.query = nn.Linear(d_model, 1, bias=False) if how == "attention" else None

    def forward(self, hidden: Tensor, length: Tensor | None = None) -> Tensor:
        """hidden (B, L, D), tokens per row (B,) or None for all → (B, D)."""
        batch, longest, _ = hidden.shape
        size = hidden.new_full((batch,), longest, dtype=torch.long) if length is None else length.to(hidden.device)
        if self.how == "last":
            return hidden[torch.arange(batch, device=hidden.device), size - 1]
        real = (torch.arange(longest, device=hidden.device) < size[:, None]).unsqueeze(-1)
        if self.how == "max":
            return hidden.masked_fill(~real, -torch.inf).amax(1)
        if self.query is not None:
            weight = self.query(hidden).masked_fill(~real, -torch.inf).softmax(1)
        else:
            weight = real / size[:, None, None]
        return (weight * hidden.masked_fill(~real, 0)).sum(1)


class SequenceModel(nn.Module):
    """One vector of outputs per sequence: logits of classes, or values of a regression.

    A model of both strands reads each in its own direction, with one pooling and one head, and answers with the
    mean: the same for a sequence and its reverse complement, to the bit.
    """

    def __init__(self, config: ModelConfig, outputs: int, pooling: Pooling = "mean", impl: Impl = "auto") -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, impl)
        self.pool = Pool(config.d_model, pooling)
        self.head = nn.Linear(config.d_model, outputs)

    def forward(self, ids: Tensor, length: Tensor | None = None) -> Tensor:
        """ids (B, L), tokens per row that are not padding (B,) → (B, outputs)."""
        if not self.config.rc_equivariant:
            return self.head(self.pool(self.backbone(ids, length=length, final_state=False)[0], length))
        strands = self.backbone.strands(ids, length=length)
        both = [self.head(self.pool(hidden, length)) for hidden in (strands.given, strands.other)]
        return (both[0] + both[1]) / 2


class TokenModel(nn.Module):
    """A vector of outputs per token: classes, or tracks such as coverage.

    Tracks of a model of both strands are those of the double strand: turned round for the reverse complement.
    """

    def __init__(self, config: ModelConfig, outputs: int, impl: Impl = "auto") -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, impl)
        self.head = nn.Linear(config.d_model, outputs)

    def forward(self, ids: Tensor, length: Tensor | None = None) -> Tensor:
        """ids (B, L), tokens per row that are not padding (B,) → (B, L, outputs); of padding, meaningless."""
        if not self.config.rc_equivariant:
            return self.head(self.backbone(ids, length=length, final_state=False)[0])
        strands = self.backbone.strands(ids, length=length)
        return (self.head(strands.given) + at(self.head(strands.other), strands.partner)) / 2
