"""What each method trains, on every mixer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genomamba.model.config import ModelConfig
from genomamba.model.sequence_heads import SequenceModel
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.config import LoraConfig, Method

IDS = torch.arange(7, 11).repeat(2, 5)


def forward(model: Any) -> Tensor:
    return model(IDS)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
@pytest.mark.parametrize("layers", ["mamba", "mamba2", "attention", "mamba gru"])
def test_what_is_trained_and_what_stays(layers: str, method: Method) -> None:
    model = SequenceModel(ModelConfig(d_model=16, n_layer=2, d_state=4, headdim=8, layers=layers), classes=["a", "b"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    finish = prepare(model, method, LoraConfig(rank=2), forward)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    for _ in range(2):  # an adapter's second factor is 0 at first, and then its first one has no gradient
        optimizer.zero_grad()
        model(IDS).square().mean().backward()
        optimizer.step()
    answer = forward(model.eval()).detach()
    finish()
    after = model.state_dict()
    assert after.keys() == before.keys()  # a plain model again
    torch.testing.assert_close(forward(model.eval()), answer, rtol=1e-4, atol=1e-5)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("head.") for name in changed)
    backbone = {name for name in changed if name.startswith("backbone.")}
    if method == "head":
        assert not backbone
    elif method == "lora":
        assert backbone
        assert all(name.rsplit(".", 2)[1] in ("in_proj", "x_proj", "out_proj") for name in backbone)
    else:
        assert "backbone.embedding.weight" in backbone
