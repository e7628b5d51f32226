"""Caduceus in every option, against its definition written out with flips, and round trips."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from genomamba.interop.exporting import export_model
from genomamba.interop.importing import import_model
from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.selective_scan import selective_scan
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig

COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]


def mamba(w: dict[str, Tensor], x: Tensor) -> Tensor:
    u, z = F.linear(x, w["in_proj.weight"], w.get("in_proj.bias")).chunk(2, -1)
    u = causal_conv1d(u, w["conv1d.weight"].squeeze(1), w.get("conv1d.bias"), silu=True, impl="reference")
    rank, states = w["dt_proj.weight"].shape[1], w["A_log"].shape[1]
    dt, B, C = F.linear(u, w["x_proj.weight"]).split([rank, states, states], -1)  # type: ignore[arg-type]
    dt = F.linear(dt, w["dt_proj.weight"], w["dt_proj.bias"])
    y = selective_scan(u, dt, -w["A_log"].exp(), B, C, w["D"], z, dt_softplus=True, impl="reference")  # type: ignore[arg-type]
    return F.linear(y, w["out_proj.weight"], w.get("out_proj.bias"))  # type: ignore[arg-type]


def below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def caduceus(weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor) -> Tensor:
    """Logits as Schiff et al. define them, strand by strand, every reversal spelt out."""
    backbone = below(weights, "caduceus.backbone.")
    rcps, fused = config["rcps"], config["fused_add_norm"]

    def norm(name: str, x: Tensor) -> Tensor:
        w = {k.removeprefix("submodule."): v for k, v in below(backbone, name + ".").items()}
        if config["rms_norm"]:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w["weight"]
        return F.layer_norm(x, x.shape[-1:], w["weight"], w["bias"], 1e-5)

    def mix(layer: int, x: Tensor) -> Tensor:
        w = below(backbone, f"layers.{layer}.mixer.")
        w = {k.removeprefix("submodule."): v for k, v in w.items()}
        ahead = mamba(below(w, "mamba_fwd."), x)
        if not config["bidirectional"]:
            return ahead
        back = mamba(below(w, "mamba_rev."), x.flip(1)).flip(1)
        return ahead + back if config["bidirectional_strategy"] == "add" else ahead * back

    def flip(x: Tensor) -> Tensor:
        return x.flip(1, 2)

    if not rcps:
        x, residual = F.embedding(ids, backbone["embeddings.word_embeddings.weight"]), torch.zeros(())
        for layer in range(config["n_layer"]):
            residual = residual + x
            x = mix(layer, norm(f"layers.{layer}.norm", residual))
        return F.linear(norm("norm_f", residual + x), weights["lm_head.weight"])

    table = backbone["embeddings.word_embeddings.embedding.weight"]
    complement = torch.tensor(COMPLEMENT)
    # Channels: the first half is the strand as given, the second the other strand, reversed in both axes.
    x = torch.cat([F.embedding(ids, table), flip(F.embedding(complement[ids.flip(1)], table))], -1)
    residual = torch.zeros_like(x)
    half = x.shape[-1] // 2
    for layer in range(config["n_layer"]):
        residual = residual + x
        if fused:
            residual = torch.cat([residual[..., half:], residual[..., :half]], -1)
        name = f"layers.{layer}.norm"
        first, second = norm(name, residual[..., :half]), norm(name, flip(residual[..., half:]))
        x = torch.cat([mix(layer, first), flip(mix(layer, second))], -1)
    total = residual + x
    first, second = norm("norm_f", total[..., :half]), norm("norm_f", flip(total[..., half:]))
    head = weights["lm_head.lm_head.weight"]
    return F.linear(first, head) + F.linear(second.flip(1), head[complement])


OPTIONS = [
    {"rcps": rcps, "fused_add_norm": fused, "n_layer": layers, "bidirectional_strategy": strategy}
    for rcps, fused, layers, strategy in itertools.product((True, False), (True, False), (2, 3), ("add", "ew_multiply"))
    if rcps or fused
]
OPTIONS += [
    {"rcps": True, "fused_add_norm": True, "n_layer": 3, "bidirectional": False, "bidirectional_strategy": "add"},
    {"rcps": False, "fused_add_norm": True, "n_layer": 2, "bidirectional": False, "bidirectional_strategy": "add"},
    {
        "rcps": True,
        "fused_add_norm": True,
        "n_layer": 3,
        "rms_norm": False,
        "bias": True,
        "conv_bias": False,
        "untied": True,
    },
    {
        "rcps": False,
        "fused_add_norm": False,
        "n_layer": 2,
        "rms_norm": False,
        "bias": True,
        "d_state": 3,
        "d_conv": 2,
        "untied": True,
    },
]


def ours(options: dict[str, Any]) -> MaskedLM:
    torch.manual_seed(3)
    given = {"bidirectional": True, "bidirectional_strategy": "add", "rms_norm": True, **options}
    model = MaskedLM(
        ModelConfig(
            d_model=16,
            n_layer=given["n_layer"],
            d_state=given.get("d_state", 4),
            d_conv=given.get("d_conv", 4),
            bias=given.get("bias", False),
            conv_bias=given.get("conv_bias", True),
            rms_norm=given["rms_norm"],
            tie_embeddings=not given.get("untied", False),
            bidirectional=given["bidirectional"],
            bidirectional_strategy=given["bidirectional_strategy"],
            bidirectional_weight_tie=not given.get("untied", False),
            rc_equivariant=given["rcps"],
            rc_strand_order="swapped" if given["rcps"] and given["fused_add_norm"] else "kept",
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()))
@torch.no_grad()
def test_every_option_means_what_the_original_means_by_it(options: dict[str, Any], tmp_path: Path) -> None:
    model = ours(options)
    export_model(model, tmp_path, "caduceus")
    again = import_model(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    config = {"bidirectional": True, "bidirectional_strategy": "add", "rms_norm": True, **options}
    ids = torch.randint(7, 12, (2, 9))
    expected = caduceus(load_file(tmp_path / "model.safetensors"), config, ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(again.model(ids), expected, rtol=1e-4, atol=1e-4)


# The configuration of a published checkpoint of both strands, in width and depth of the model below.
PUBLISHED = """{
  "_name_or_path": "", "architectures": ["CaduceusForMaskedLM"],
  "auto_map": {"AutoConfig": "configuration_caduceus.CaduceusConfig"},
  "bidirectional": true, "bidirectional_strategy": "add", "bidirectional_weight_tie": true,
  "complement_map": {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6, "7": 10, "8": 9, "9": 8, "10": 7,
    "11": 11, "12": 12, "13": 13, "14": 14, "15": 15},
  "d_model": 16, "fused_add_norm": true, "initializer_cfg": {"initializer_range": 0.02}, "model_type": "caduceus",
  "n_layer": 3, "norm_epsilon": 1e-05, "pad_token_id": 4, "pad_vocab_size_multiple": 8, "rcps": true,
  "residual_in_fp32": false, "rms_norm": true,
  "ssm_cfg": {"bias": false, "conv_bias": true, "d_conv": 4, "d_state": 4, "dt_init": "random", "dt_init_floor": 0.0001,
    "dt_max": 0.1, "dt_min": 0.001, "dt_rank": "auto", "dt_scale": 1.0, "expand": 2, "use_fast_path": true},
  "torch_dtype": "float32", "transformers_version": "4.38.1", "vocab_size": 16}"""


@torch.no_grad()
def test_a_published_configuration_is_understood(tmp_path: Path) -> None:
    model = ours({"rcps": True, "fused_add_norm": True, "n_layer": 3})
    export_model(model, tmp_path, "caduceus")
    (tmp_path / "config.json").write_text(PUBLISHED)
    ids = torch.randint(7, 12, (2, 11))
    assert torch.equal(import_model(tmp_path).model(ids), model(ids))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()))
@torch.no_grad()
def test_names_and_shapes_suffice_but_for_the_strategy(options: dict[str, Any], tmp_path: Path) -> None:
    model = ours(options)
    export_model(model, tmp_path, "caduceus")
    (tmp_path / "config.json").unlink()
    strategy = options.get("bidirectional_strategy", "add")
    again = import_model(tmp_path, [f"bidirectional_strategy={strategy}"]).model
    ids = torch.randint(7, 12, (2, 11))
    assert torch.equal(again(ids), model(ids))
