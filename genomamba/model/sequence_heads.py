"""Heads for whole sequences and for every token, on a backbone of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from genomamba.errors import ConfigError
from genomamba.kernels.selective_scan import Impl
from genomamba.model.backbone import Backbone
from genomamba.model.config import Link, ModelConfig, Pooling, SequenceHeadConfig
from genomamba.model.strands import at
from genomamba.model.trees import TreeHead, TreeShape


class Pool(nn.Module):
    """Hidden states of the real tokens as one vector per row; padding has no part in it.

    Attention weighs token t by softmax_t(q · h_t). For regions there are several such, side by side, and each also
    prefers a part of the sequence: softmax_t(q_k · h_t - (x_t - c_k)² / 2 w_k²), where x_t in (0, 1) is the place of
    the token among the real ones. Centres c_k begin evenly spaced, widths w_k at half of that space; all is learned.

    Args:
        d_model: width of a hidden state.
        how: one of the poolings.
        regions: how many, where there are regions.

    Attributes:
        width: of the vector.

    Raises:
        ConfigError: no such pooling.
    """

    def __init__(self, d_model: int, how: Pooling, regions: int = 1) -> None:
        super().__init__()
        if how not in get_args(Pooling):
            raise ConfigError(
                "no such pooling", f"choose from {', '.join(get_args(Pooling))}", field="pooling", value=how
            )
        self.how: Pooling = how
        count = regions if how == "regions" else 1
        self.width = count * d_model
        self.query = nn.Linear(d_model, count, bias=False) if how in ("attention", "regions") else None
        if how == "regions":
            self.center = nn.Parameter((torch.arange(count) + 0.5) / count)
            self.log_width = nn.Parameter(torch.full((count,), -math.log(2 * count)))

    def forward(self, hidden: Tensor, length: Tensor | None = None) -> Tensor:
        """hidden (B, L, D), tokens per row (B,) or None for all → (B, width)."""
        batch, longest, _ = hidden.shape
        size = hidden.new_full((batch,), longest, dtype=torch.long) if length is None else length.to(hidden.device)
        if self.how == "last":
            return hidden[torch.arange(batch, device=hidden.device), size - 1]
        real = (torch.arange(longest, device=hidden.device) < size[:, None]).unsqueeze(-1)
        if self.how == "max":
            return hidden.masked_fill(~real, -torch.inf).amax(1)
        hidden = hidden.masked_fill(~real, 0)
        if self.query is None:
            return (real / size[:, None, None] * hidden).sum(1)
        affinity = self.query(hidden)
        if self.how == "regions":
            place = (torch.arange(longest, device=hidden.device) + 0.5) / size[:, None]
            apart = (place.unsqueeze(-1) - self.center) * torch.exp(-self.log_width)
            affinity = affinity - apart.square() / 2
        weight = affinity.masked_fill(~real, -torch.inf).softmax(1)
        if self.how == "attention":
            return (weight * hidden).sum(1)
        return torch.einsum("blk,bld->bkd", weight, hidden.to(weight.dtype)).flatten(1)


class SequenceModel(nn.Module):
    """A class, or one value, for a whole sequence.

    Where answers for both strands are averaged, a sequence and its reverse complement get the same, to the bit.

    Args:
        config: of the backbone; causal or not.
        head: pooling, strands and layers of the head.
        classes: names in the order of the outputs; none for a regression.
        trees: of a head of boosted trees, which has no layers.

    Attributes:
        log_weight: (C,) log of what each class counted in training, which a calibrated answer takes back.
        temperature: (), divides the logits (Guo et al. 2017, eq. 9); chosen on validation.
        threshold: (), of the second class's probability, where there are two classes; chosen on validation.
        center, scale: (), of a regression: outputs are (value - center) / scale.
    """

    log_weight: Tensor
    temperature: Tensor
    threshold: Tensor
    center: Tensor
    scale: Tensor

    def __init__(
        self,
        config: ModelConfig,
        head: SequenceHeadConfig | None = None,
        classes: Sequence[str] = (),
        impl: Impl = "auto",
        trees: TreeShape | None = None,
    ) -> None:
        super().__init__()
        self.config, self.classes = config, tuple(classes)
        self.head_config = head = head or SequenceHeadConfig()
        self.backbone = Backbone(config, impl)
        self.pool = Pool(config.d_model, head.pooling, head.regions)
        width = self.pool.width * (2 if head.strands == "joined" else 1)
        outputs = max(len(self.classes), 1)
        self.head: nn.Module = _layers(head, width, outputs) if trees is None else TreeHead(trees, outputs)
        self.register_buffer("log_weight", torch.zeros(outputs))
        for name, value in (("temperature", 1.0), ("threshold", 0.5), ("center", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    def use_head(self, head: nn.Linear | TreeHead) -> None:
        """Puts a fitted head in the place of a linear one without hidden layer."""
        self.head = head if isinstance(head, TreeHead) else nn.Sequential(nn.Dropout(self.head_config.dropout), head)

    @property
    def is_regression(self) -> bool:
        return not self.classes

    def features(self, ids: Tensor, length: Tensor | None = None, *, given_only: bool = False) -> list[Tensor]:
        """What the head sees: a (B, width) for each of its answers, two where both strands' answers are averaged.

        Args:
            ids: (B, L).
            length: tokens per row that are not padding, (B,).
            given_only: leave out the other strand's answer; for training on strands drawn at random.
        """
        reading = self.head_config.strands
        if reading == "given" or (reading == "both" and given_only):
            return [self.pool(self.backbone.given_strand(ids, length=length), length)]
        strands = self.backbone.strands(ids, length=length)
        both = [self.pool(hidden, length) for hidden in (strands.given, strands.other)]
        return [torch.cat(both, -1)] if reading == "joined" else both

    def forward(self, ids: Tensor, length: Tensor | None = None, *, given_only: bool = False) -> Tensor:
        """Arguments as of `features` → logits (B, C), or standardised values (B, 1)."""
        answers = [self.head(vector) for vector in self.features(ids, length, given_only=given_only)]
        return answers[0] if len(answers) == 1 else (answers[0] + answers[1]) / 2

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities (B, C), fp32, of logits (B, C)."""
        return ((logits.float() - self.log_weight) / self.temperature).softmax(-1)

    def log_odds(self, logits: Tensor, target: int) -> Tensor:
        """log p / (1 - p), nats, (B,), fp64, of one class's calibrated p; also where p itself rounds to 0 or 1."""
        calibrated = (logits.double() - self.log_weight.double()) / self.temperature.double()
        others = torch.cat([calibrated[:, :target], calibrated[:, target + 1 :]], -1)
        return calibrated[:, target] - others.logsumexp(-1)

    def values(self, outputs: Tensor) -> Tensor:
        """The values (B,), fp32, of a regression's outputs (B, 1)."""
        return outputs.float().squeeze(-1) * self.scale + self.center

    def called(self, probabilities: Tensor) -> Tensor:
        """The class (B,) of probabilities (B, C): the likeliest; of two classes, the second from its threshold on."""
        if len(self.classes) == 2:
            return (probabilities[:, 1] >= self.threshold).long()
        return probabilities.argmax(-1)


def _layers(head: SequenceHeadConfig, width: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(head.dropout)]
    if head.d_hidden:
        layers += [nn.Linear(width, head.d_hidden), nn.SiLU(), nn.Dropout(head.dropout)]
    return nn.Sequential(*layers, nn.Linear(head.d_hidden or width, outputs))


class TokenModel(nn.Module):
    """A vector of outputs per token: classes, or tracks such as coverage.

    Tracks of a model of both strands are those of the double strand: turned round for the reverse complement.

    Args:
        config: of the backbone; causal or not.
        tracks: names in the order of the outputs.
        link: what the head predicts of an output: itself, or its log, so that outputs are above 0 (the rates of a
            Poisson model; McCullagh & Nelder 1989, section 2.2).

    Raises:
        ConfigError: no such link.
    """

    def __init__(
        self, config: ModelConfig, tracks: Sequence[str], impl: Impl = "auto", link: Link = "identity"
    ) -> None:
        super().__init__()
        if link not in get_args(Link):
            raise ConfigError("no such link", f"choose from {', '.join(get_args(Link))}", field="link", value=link)
        self.config, self.tracks, self.link = config, tuple(tracks), link
        self.backbone = Backbone(config, impl)
        self.head = nn.Linear(config.d_model, len(self.tracks))

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """Outputs (..., tracks) of what the backbone returns, (..., d_model), or twice that for both strands."""
        if self.config.rc_equivariant:
            first, second = hidden.chunk(2, dim=-1)
            return self.outputs((self.head(first) + self.head(second)) / 2)
        return self.outputs(self.head(hidden))

    def outputs(self, predictors: Tensor) -> Tensor:
        """What the head's predictors mean: the outputs themselves, or their logs."""
        return predictors.exp() if self.link == "log" else predictors

    def predictors(self, ids: Tensor, length: Tensor | None = None) -> Tensor:
        """Arguments as of `forward` → what the head predicts, (B, L, tracks)."""
        if not self.config.rc_equivariant:
            return self.head(self.backbone(ids, length=length, final_state=False)[0])
        strands = self.backbone.strands(ids, length=length)
        return (self.head(strands.given) + at(self.head(strands.other), strands.partner)) / 2

    def forward(self, ids: Tensor, length: Tensor | None = None) -> Tensor:
        """ids (B, L), tokens per row that are not padding (B,) → (B, L, tracks); of padding, meaningless."""
        return self.outputs(self.predictors(ids, length))
