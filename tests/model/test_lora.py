"""Adapters on an imported checkpoint: they act, they are few, and one that would not act is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genomamba.errors import ConfigError
from genomamba.interop.importing import import_model
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.lora import IdleAdapterError, add_lora

pytest.importorskip("peft", reason="LoRA needs peft")
GOLDEN = Path(__file__).parents[1] / "golden"


def probe(model: Any) -> Tensor:
    return model(torch.arange(7, 11).repeat(1, 8))


@pytest.mark.parametrize("name", ["mamba1", "caduceus_ps_fused"])
def test_fine_tuning_changes_the_output_and_trains_few_weights(name: str) -> None:
    model = import_model(GOLDEN / f"{name}.safetensors").model
    before = probe(model).detach()
    adapted = add_lora(model, probe, rank=1, targets=("in_proj",))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) < 0.05 * sum(p.numel() for p in model.parameters())
    assert torch.equal(probe(adapted), before)  # it starts as it was
    optimizer = torch.optim.SGD(trained, lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        probe(adapted).square().mean().backward()
        optimizer.step()
    after = probe(adapted).detach()
    assert (after - before).abs().max() > 1e-3
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(probe(merged), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", ["mamba", "mamba2", "s4d", "attention", "gru"])
def test_every_mixers_projections_are_adapted(layers: str) -> None:
    model = CausalLM(ModelConfig(d_model=16, n_layer=2, d_state=4, headdim=8, layers=layers))
    adapted = add_lora(model, probe, rank=2, targets=("in_proj", "out_proj"))
    assert sum(".lora_B." in name for name, _ in adapted.named_parameters()) == 4


def test_an_adapter_that_is_passed_by_is_refused() -> None:
    model = CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4))
    with pytest.raises(IdleAdapterError, match="dt_proj"):  # the mixer reads its weight, and never calls it
        add_lora(model, probe, targets=("in_proj", "dt_proj"))


def test_a_target_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="targets=q_proj: no Linear of that name; choose from dt_proj, in_proj"):
        add_lora(CausalLM(ModelConfig(d_model=16, n_layer=1)), probe, targets=("q_proj",))
