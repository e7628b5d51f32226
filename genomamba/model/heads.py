"""Heads: from the hidden states of a reference and an alternative sequence to a variant's logit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from genomamba.genome import alphabet
from genomamba.kernels.selective_scan import Impl
from genomamba.model.backbone import Backbone, TokenHead, base_log_probability
from genomamba.model.config import ModelConfig, VariantHeadConfig
from genomamba.model.trees import TreeHead, TreeShape


class SequencePair(NamedTuple):
    """Reference and alternative sequences of V variants, on S strands, right-padded to L.

    Row order of ids is (variant, strand, ref | alt).
    """

    ids: Tensor  # (V, S, 2, L), uint8
    length: Tensor  # (V, S, 2): tokens that are not padding
    site: Tensor  # (V, S, 2, 2): start and end of the allele within the row


class VariantClassifier(nn.Module):
    """P(variant is of the positive class) from both alleles' sequences, averaged over strands.

    A causal model sees an allele only in what follows it, so the features are the hidden states pooled
    over the allele with its flank and over everything from the allele on, for alt minus ref and for ref,
    and the log-likelihood ratio. On the second strand the other side of the context is what follows.

    A model that looks both ways shows the allele everywhere, so that everything is pooled; its log-likelihood ratio
    is that of the bases that change, hidden from it in a pass of their own.
    """

    def __init__(
        self, config: ModelConfig, head: VariantHeadConfig, impl: Impl = "auto", trees: TreeShape | None = None
    ) -> None:
        super().__init__()
        self.config, self.head_config = config, head
        self.d_hidden = config.d_model * (2 if config.rc_equivariant else 1)  # both strands side by side
        self.backbone = Backbone(config, impl)
        self.lm_head = TokenHead(config)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight
        self.head: nn.Module = _layers(head, 4 * self.d_hidden + 1) if trees is None else TreeHead(trees, 2)
        # Chosen on the validation split; a slope and an intercept (Platt 1999), since training weighs both
        # classes alike and a temperature cannot move a prior.
        self.slope: Tensor
        self.intercept: Tensor
        self.threshold: Tensor
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("threshold", torch.full((), 0.5))

    def forward(self, pair: SequencePair) -> tuple[Tensor, Tensor]:
        """Returns (logit (V,), llr (V,)): the uncalibrated logit and log p(alt) - log p(ref) in nats."""
        features, llr = self.features(pair)
        return self._logit(features), llr.mean(dim=1)

    def features(self, pair: SequencePair) -> tuple[Tensor, Tensor]:
        """What the head sees of each variant on each strand, (V, S, 4 d_hidden + 1), fp32, and the llr, (V, S)."""
        variants, strands, _, length = pair.ids.shape
        ids = pair.ids.reshape(-1, length)
        hidden = self.backbone(ids, length=pair.length.reshape(-1), final_state=False)[0]
        if self.config.is_causal:
            llr = pair_llr(self.lm_head(hidden), pair)
        else:
            llr = site_llr(self.backbone, self.lm_head, pair)
        llr = llr.unsqueeze(-1)  # (V, S, 1)

        position = torch.arange(length, device=ids.device)
        start, end = (pair.site[..., i].reshape(-1, 1) for i in (0, 1))
        real = position < pair.length.reshape(-1, 1)
        near = real & (position >= start - self.head_config.flank) & (position < end + self.head_config.flank)
        after = real & (position >= start) if self.config.is_causal else real
        pooled = torch.cat([_masked_mean(hidden, near), _masked_mean(hidden, after)], dim=-1)
        pooled = pooled.view(variants, strands, 2, -1)
        return self._seen(pooled[:, :, 0], pooled[:, :, 1], llr), llr.squeeze(-1)

    def answer(self, ref: Tensor, alt: Tensor, llr: Tensor) -> Tensor:
        """The uncalibrated logit, (V,), from what `features` pools.

        Args:
            ref: means near the allele and from it on, side by side, of the reference, (V, S, 2 d_hidden).
            alt: the same of the alternative.
            llr: nats, (V, S, 1).
        """
        return self._logit(self._seen(ref, alt, llr))

    @staticmethod
    def _seen(ref: Tensor, alt: Tensor, llr: Tensor) -> Tensor:
        return torch.cat([alt - ref, ref, torch.tanh(llr / 8)], dim=-1).float()

    def _logit(self, features: Tensor) -> Tensor:
        """(V, S, ·) → (V,), the mean over strands."""
        answers = self.head(features.flatten(0, 1))
        # Trees answer for both classes, the first of them with 0.
        return answers[:, -1].view(features.shape[:2]).mean(dim=1)

    def use_head(self, head: nn.Linear | TreeHead) -> None:
        """Puts a fitted head of two outputs, the first of them 0, in the place of a linear one without hidden layer."""
        if isinstance(head, nn.Linear):
            own = nn.Linear(head.in_features, 1)
            own.load_state_dict({"weight": head.weight[1:], "bias": head.bias[1:]})
            self.head = nn.Sequential(nn.Dropout(self.head_config.dropout), own)
        else:
            self.head = head

    def probability(self, logit: Tensor) -> Tensor:
        """The calibrated probability of a logit."""
        return torch.sigmoid(self.slope * logit + self.intercept)


def _layers(head: VariantHeadConfig, width: int) -> nn.Sequential:
    if not head.d_hidden:
        return nn.Sequential(nn.Dropout(head.dropout), nn.Linear(width, 1))
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Dropout(head.dropout),
        nn.Linear(width, head.d_hidden),
        nn.SiLU(),
        nn.Linear(head.d_hidden, 1),
    )


def pair_llr(logits: Tensor, pair: SequencePair) -> Tensor:
    """log p(alt) - log p(ref) over the whole window, nats, (V, S), from logits of the flattened rows.

    Positions whose token is not a base count for neither. Sums of thousands of terms are taken in fp64: their
    difference is small.
    """
    variants, strands, _, length = pair.ids.shape
    ids = pair.ids.reshape(-1, length)
    log_p = base_log_probability(logits[:, :-1], ids[:, 1:])
    real = torch.arange(1, length, device=ids.device) < pair.length.reshape(-1, 1)
    total = torch.where(real, log_p, log_p.new_zeros(())).double().sum(-1).view(variants, strands, 2)
    return (total[..., 1] - total[..., 0]).to(log_p.dtype)


def site_llr(backbone: Backbone, lm_head: TokenHead, pair: SequencePair) -> Tensor:
    """log p(alt) - log p(ref) of the bases that change, nats, (V, S), under a model that looks both ways.

    All of them are hidden at once; where the alleles differ in length, the base on either side is hidden and counted
    too, so that no allele is empty.
    """
    variants, strands, _, length = pair.ids.shape
    ids = pair.ids.reshape(-1, length)
    size = pair.site[..., 1] - pair.site[..., 0]  # (V, S, 2)
    anchor = (size[..., :1] != size[..., 1:]).expand_as(size).reshape(-1, 1).long()
    start, end = (pair.site[..., i].reshape(-1, 1) for i in (0, 1))
    position = torch.arange(length, device=ids.device)
    real = pair.length.reshape(-1, 1)
    hidden_from_it = (position >= start - anchor) & (position < end + anchor) & (position < real)
    seen = torch.where(hidden_from_it, torch.full_like(ids, alphabet.MASK), ids)
    states = backbone(seen, length=pair.length.reshape(-1), final_state=False)[0]
    log_p = base_log_probability(lm_head(states), ids)
    total = torch.where(hidden_from_it, log_p, log_p.new_zeros(())).double().sum(-1).view(variants, strands, 2)
    return (total[..., 1] - total[..., 0]).to(log_p.dtype)


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over L of hidden (R, L, D) where mask (R, L); every row must have a True."""
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
