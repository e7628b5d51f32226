"""transformers' Mamba and Mamba-2 to ours and back, to 1e-5, in several shapes and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from genomamba.errors import CheckpointError
from genomamba.interop.exporting import export_model
from genomamba.interop.importing import import_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig

MAMBA = [
    {},
    {"state_size": 4, "conv_kernel": 3, "expand": 3, "time_step_rank": 5, "use_bias": True},
    {"use_conv_bias": False, "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
]
MAMBA2 = [
    {"num_heads": 4, "head_dim": 16, "n_groups": 2},
    {"num_heads": 6, "head_dim": 16, "n_groups": 3, "expand": 3, "use_bias": True, "tie_word_embeddings": True},
    {"num_heads": 8, "head_dim": 8, "n_groups": 1, "time_step_limit": (0.01, 0.5), "use_conv_bias": False},
]


def build(kind: str, options: dict[str, Any]) -> torch.nn.Module:
    config_class, model_class = {
        "mamba": (transformers.MambaConfig, transformers.MambaForCausalLM),
        "mamba2": (transformers.Mamba2Config, transformers.Mamba2ForCausalLM),
    }[kind]
    config = config_class(hidden_size=32, num_hidden_layers=2, vocab_size=21, **{"state_size": 8, **options})
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, so that nothing passes by being zero or one
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("kind", "options"), [("mamba", o) for o in MAMBA] + [("mamba2", o) for o in MAMBA2])
@torch.no_grad()
def test_round_trip(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = build(kind, options)
    theirs.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    ids = torch.randint(0, 21, (2, 37))
    expected = theirs(ids).logits
    ours = import_model(tmp_path / "theirs").model
    assert (ours(ids) - expected).abs().max() < 1e-5
    export_model(ours, tmp_path / "back", "transformers")
    again, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)  # type: ignore[attr-defined]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert (again.eval()(ids).logits - expected).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
@torch.no_grad()
def test_shapes_alone_suffice_but_for_groups(kind: str, tmp_path: Path) -> None:
    theirs = build(kind, {"num_heads": 4, "head_dim": 16, "n_groups": 2} if kind == "mamba2" else {})
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "config.json").unlink()
    ids = torch.randint(0, 21, (2, 20))
    ours = import_model(tmp_path / "model.safetensors", ["n_groups=2"] if kind == "mamba2" else []).model
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (MaskedLM(ModelConfig(d_model=16, n_layer=1, bidirectional=True)), "it is of CausalLM, this is a MaskedLM"),
        (CausalLM(ModelConfig(d_model=16, n_layer=2, layers="mamba gru")), "all mamba or all mamba2"),
        (CausalLM(ModelConfig(d_model=16, n_layer=1, rms_norm=False)), "its norm is RMSNorm"),
        (CausalLM(ModelConfig(d_model=32, n_layer=1, layers="mamba2", gated_norm=False)), "gated_norm"),
    ],
)
def test_what_transformers_lacks_is_said(model: CausalLM, why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=why):
        export_model(model, tmp_path / "x", "transformers")
    assert not (tmp_path / "x").exists()


@torch.no_grad()
def test_our_mamba2_with_another_step_limit_is_exported(tmp_path: Path) -> None:
    config = ModelConfig(d_model=32, n_layer=2, layers="mamba2", headdim=16, d_state=8, dt_limit_min=0.01)
    ours = CausalLM(config).eval()
    path = export_model(ours, tmp_path, "transformers")
    assert "backbone.embeddings.weight" in safetensors.torch.load_file(path)
    theirs = transformers.Mamba2ForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 12, (2, 30))
    assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-5
