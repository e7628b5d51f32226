"""What fine-tuning starts from: the pretrained weights, in the pretrained architecture but for its dropout."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from world import World

from genomamba.model.config import ModelConfig
from genomamba.model.folder import load_model, weights_fingerprint
from genomamba.model.sequence_heads import SequenceModel, TokenModel
from genomamba.pipelines.pretrained_start import started
from genomamba.tasks.config import Method


class Options(NamedTuple):
    model: str | None
    dropout: float | None = None
    method: Method = "full"
    architecture: ModelConfig = ModelConfig(d_model=8, n_layer=1, d_state=2)
    resume: bool = False
    force: bool = False


def sequences(architecture: ModelConfig) -> SequenceModel:
    return SequenceModel(architecture, classes=["no", "yes"])


def tracks(architecture: ModelConfig) -> TokenModel:
    return TokenModel(architecture, ["a"], link="log")


@pytest.mark.parametrize("make", [sequences, tracks])
@pytest.mark.parametrize("dropout", [None, 0.25])
def test_the_backbone_is_the_pretrained_one(world: World, make: Any, dropout: float | None) -> None:
    pretrained = load_model(world.pretrained)
    model, source = started(Options(str(world.pretrained), dropout), make)
    assert source == {"path": str(world.pretrained), "weights": weights_fingerprint(world.pretrained)}
    assert model.config.dropout == (pretrained.config.dropout if dropout is None else dropout)
    assert model.config.d_model == pretrained.config.d_model
    for name, tensor in pretrained.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name


def test_from_scratch_it_has_the_architecture_that_was_asked_for() -> None:
    model, source = started(Options(None), tracks)
    assert (model.config, model.link, source) == (Options(None).architecture, "log", None)
