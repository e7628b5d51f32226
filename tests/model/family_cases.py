"""Models of every kind, small, for laws that all of them obey."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM, LanguageModel, MaskedLM
from genomamba.model.config import ModelConfig

CAUSAL: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba2": {"layers": "mamba2", "ngroups": 2},
    "mamba2 plain": {"layers": "mamba2", "gated_norm": False, "D_per_channel": True, "d_ssm": 16},
    "s4d": {"layers": "s4d"},
    "gru": {"layers": "gru"},
    "attention": {"layers": "attention"},
    "attention window": {"layers": "attention", "window": 5},
    "hybrid": {"layers": "mamba attention mamba2 gru", "n_layer": 4, "window": 9},
    "mlp": {"layers": "mamba s4d", "d_mlp": 24, "rms_norm": False},
}
BOTH_WAYS: dict[str, dict[str, Any]] = {
    name: {**options, "bidirectional": True, "bidirectional_strategy": strategy, "bidirectional_weight_tie": tied}
    for (name, options), strategy, tied in zip(
        CAUSAL.items(),
        ["add", "ew_multiply", "concat"] * 3,
        [True, False, True, False, True, True, True, True, False],
        strict=True,
    )
}
BOTH_STRANDS: dict[str, dict[str, Any]] = {
    f"{name} {order}": {**options, "rc_equivariant": True, "rc_strand_order": order}
    for name, options in BOTH_WAYS.items()
    for order in ("kept", "swapped")
}
BOTH_STRANDS["causal kept"] = {"rc_equivariant": True}
BOTH_STRANDS["causal swapped"] = {"rc_equivariant": True, "rc_strand_order": "swapped", "n_layer": 3}
ALL = {**CAUSAL, **{f"{k} <>": v for k, v in BOTH_WAYS.items()}, **{f"{k} rc": v for k, v in BOTH_STRANDS.items()}}


def build(options: dict[str, Any]) -> LanguageModel:
    torch.manual_seed(2)
    config = ModelConfig(**{"d_model": 16, "n_layer": 2, "d_state": 4, "headdim": 8, **options})
    model = CausalLM(config) if config.is_causal else MaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def bases(*shape: int) -> Tensor:
    return torch.randint(alphabet.A, alphabet.N + 1, shape, dtype=torch.uint8)


def close(mine: Any, theirs: Any) -> None:
    """Nested states, value by value."""
    if isinstance(mine, Tensor):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    elif isinstance(mine, (tuple, list)):
        for a, b in zip(mine, theirs, strict=True):
            close(a, b)
    else:
        assert mine == theirs
