"""A causal mixer read in both directions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genomamba.model.config import ModelConfig
from genomamba.model.mixer import Mixer


class BidirectionalMixer(nn.Module):
    """One mixer from first to last token, one from last to first, joined (Schiff et al. 2024, section 4.1).

    The second reads backwards where the sequence lies; nothing is flipped. With tied projections (the bulk of
    the parameters) the input is projected once, and sums are projected out once.
    """

    def __init__(self, config: ModelConfig, make: Callable[[], Mixer]) -> None:
        super().__init__()
        self.strategy, self.tied = config.bidirectional_strategy, config.bidirectional_weight_tie
        self.ahead, self.back = make(), make()
        if self.tied:
            del self.back.in_proj, self.back.out_proj
        if self.strategy == "concat":
            width = 2 * self.ahead.d_mixed
            self.out_proj = nn.Linear(width, config.d_model, bias=config.bias)
            del self.ahead.out_proj
            if not self.tied:
                del self.back.out_proj

    def forward(
        self, x: Tensor, state: None = None, reset: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, None]:
        """As `Mixer.forward`, but no state passes: what comes later is part of every output."""
        if state is not None:
            raise ValueError("a bidirectional mixer has no state to continue from")
        ahead = self.ahead.in_proj(x)
        back = ahead if self.tied else self.back.in_proj(x)
        y_ahead, _ = self.ahead.inner(ahead, None, reset, reverse)
        y_back, _ = self.back.inner(back, None, reset, not reverse)
        if self.strategy == "concat":
            return self.out_proj(torch.cat([y_ahead, y_back], -1)), None
        out = self.ahead.out_proj
        if self.strategy == "add" and self.tied:
            y = out(y_ahead + y_back)
            return (y if out.bias is None else y + out.bias), None  # each direction brings its bias
        y_ahead, y_back = out(y_ahead), (out if self.tied else self.back.out_proj)(y_back)
        return (y_ahead + y_back if self.strategy == "add" else y_ahead * y_back), None
