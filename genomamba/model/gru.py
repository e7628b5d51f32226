"""A gated recurrent unit (Cho et al. 2014) between projections, for comparison: sequential in L."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genomamba.kernels.selective_scan import Impl
from genomamba.model.config import ModelConfig
from genomamba.model.mamba import scale_output
from genomamba.model.mixer import Mixer, behind_first_wall, walled_pieces


class GruMixer(Mixer):
    """torch's GRU of d_model channels; its state is (B, d_model)."""

    def __init__(self, config: ModelConfig, impl: Impl = "auto") -> None:
        super().__init__()
        self.d_mixed = config.d_model
        self.in_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.gru = nn.GRU(config.d_model, config.d_model, batch_first=True)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        scale_output(self.out_proj, config)

    def inner(self, p: Tensor, state: Tensor | None, reset: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        h = p.new_zeros(p.shape[0], self.d_mixed) if state is None else state
        ys: list[Tensor] = []
        for start, end, walled in walled_pieces(reset, p.shape[1], reverse):
            if walled is not None:
                h = torch.where(walled[:, None], h.new_zeros(()), h)
            if start == end:
                continue
            piece = p[:, start:end]
            y, h = self.gru(piece.flip(1) if reverse else piece, h.unsqueeze(0).contiguous())
            h = h.squeeze(0)
            ys.append(y.flip(1) if reverse else y)
        h = behind_first_wall(reset, h, reverse)
        return torch.cat(ys[::-1] if reverse else ys, 1) if ys else p, h
