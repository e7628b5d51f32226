"""What is wrong with a checkpoint is said by name and shape, and nothing in one is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from genomamba.errors import CheckpointError
from genomamba.interop.exporting import export_model
from genomamba.interop.importing import import_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.pipelines.cli import main

OPTIONS: list[dict[str, Any]] = [
    {"tie_embeddings": False, "bias": True, "rms_norm": False, "dt_rank": 3, "d_conv": 2, "expand": 3},
    {"layers": "mamba2", "headdim": 8, "ngroups": 2, "d_mlp": 128, "ssd_tf32": True},
    {"layers": "mamba2", "headdim": 8, "gated_norm": False, "D_per_channel": True, "d_ssm": 16, "ssd_tf32": True},
    {"layers": "mamba2", "headdim": 16, "norm_before_gate": True, "dt_limit_max": 0.5, "bias": True, "ssd_tf32": True},
]


MAMBA2 = {"layers": "mamba2", "headdim": 8, "ssd_tf32": True}


def small(kind: type[CausalLM] | type[MaskedLM] = CausalLM, **options: Any) -> CausalLM | MaskedLM:
    torch.manual_seed(5)
    return kind(ModelConfig(**{"d_model": 16, "n_layer": 2, "d_state": 4, **options})).eval()


@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_state_spaces_checkpoints_read_back_with_and_without_their_configuration(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model = small(**options)
    written = export_model(model, tmp_path, "state-spaces")
    assert written.name == "pytorch_model.bin"
    ids = torch.randint(7, 12, (2, 20))
    again = import_model(tmp_path)
    assert not again.guessed
    assert again.model.config.ngroups == model.config.ngroups
    assert torch.equal(again.model(ids), model(ids))
    (tmp_path / "config.json").unlink()
    said = ["norm_before_gate=true", "dt_limit=[0, 0.5]"] if options.get("norm_before_gate") else []
    said += ["ngroups=2"] if options.get("ngroups") else []
    bare = import_model(written, [f"ssm_cfg.{word}" for word in said])
    assert bare.guessed
    assert torch.equal(bare.model(ids), model(ids))


@torch.no_grad()
def test_a_configuration_is_found_by_name_or_given(tmp_path: Path) -> None:
    model = small(layers="mamba2", headdim=8, ngroups=2, ssd_tf32=True)
    export_model(model, tmp_path / "a", "state-spaces")
    (tmp_path / "a" / "pytorch_model.bin").rename(tmp_path / "x.bin")
    ids = torch.randint(7, 12, (1, 9))
    given = import_model(tmp_path / "x.bin", config=tmp_path / "a" / "config.json")
    assert torch.equal(given.model(ids), model(ids))
    (tmp_path / "a" / "config.json").rename(tmp_path / "x.json")
    (tmp_path / "config.json").write_text("{}")
    assert torch.equal(import_model(tmp_path / "x.bin").model(ids), model(ids))
    with pytest.raises(CheckpointError, match="it is missing"):
        import_model(tmp_path / "x.bin", config=tmp_path / "no.json")


@torch.no_grad()
def test_shards_are_put_together(tmp_path: Path) -> None:
    model = small()
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    names = sorted(weights)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in parts.items():
        safetensors.torch.save_file({name: weights[name] for name in part}, tmp_path / file)
    listed = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    ids = torch.randint(7, 12, (1, 9))
    assert torch.equal(import_model(tmp_path).model(ids), model(ids))


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("a-stranger-was-here",))


Weights = dict[str, Tensor]
DAMAGE: list[tuple[Callable[[Weights], object], list[str]]] = [
    (lambda w: w.pop("backbone.norm_f.weight"), ["missing backbone.norm_f.weight (16,)"]),
    (lambda w: w.update(extra=torch.zeros(3)), ["left over extra (3,)"]),
    (
        lambda w: w.update({"backbone.layers.0.mixer.D": torch.zeros(7)}),
        ["backbone.layers.0.mixer.D is (7,), the configuration asks for (32,)"],
    ),
    (
        lambda w: w.update({"lm_head.weight": torch.zeros(16, 16)}),
        ["lm_head.weight (16, 16) differs from backbone.emb"],
    ),
    (lambda w: w.pop("backbone.embedding.weight"), ["named as in no known original: backbone.layers.0.mixer.A_log"]),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE)
def test_damage_is_named(damage: Callable[[Weights], object], words: list[str], tmp_path: Path) -> None:
    export_model(small(), tmp_path, "state-spaces")
    weights = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    damage(weights)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        import_model(tmp_path)
    for word in ["pytorch_model.bin", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"d_modle": 3}, "d_modle: unknown key; the nearest is d_model"),
    ({"ssm_cfg": {"layer": "Mamba3"}}, "ssm_cfg.layer=Mamba3: only Mamba1 and Mamba2 can be imported"),
    ({"ssm_cfg": {"d_sate": 3}}, "ssm_cfg.d_sate: unknown key; the nearest is d_state"),
    ({"n_layer": "two"}, "n_layer=two: expected int"),
    ({"attn_layer_idx": [1]}, "attention layers"),
    ({"d_model": 0}, "model.d_model=0: it must be at least 1"),
    ({"ssm_cfg": 3}, "ssm_cfg=3: expected a mapping"),
]


@pytest.mark.parametrize(("change", "words"), CONFIGS)
def test_configurations_that_mean_something_else_are_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    export_model(small(), tmp_path, "state-spaces")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError) as caught:
        import_model(tmp_path)
    assert words in str(caught.value)


def test_a_pickle_that_would_act_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"backbone.embedding.weight": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        import_model(tmp_path)
    assert not (tmp_path / "a-stranger-was-here").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_files_that_are_cut_or_something_else_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00" * 50)
    with pytest.raises(CheckpointError, match=r"cut or no file of weights|it is damaged"):
        import_model(tmp_path / name)
    torch.save({"state_dict": {}}, tmp_path / "y.bin")
    with pytest.raises(CheckpointError, match="no state dict"):
        import_model(tmp_path / "y.bin")
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors"):
        import_model(tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        import_model(tmp_path / "nowhere")


# Of each: the dialect, options of the model, what is set, what is said to be wrong with it, and a key that is accepted.
WITHOUT_EFFECT: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("transformers", {}, "ssm_cfg.ngroups=2", "ssm_cfg.ngroups: it changes nothing", "time_step_rank"),
    ("transformers", {}, "pad_vocab_size_multiple=8", "pad_vocab_size_multiple: it changes nothing", "vocab_size"),
    ("transformers", {}, "n_groups=2", "n_groups: unknown key", ""),
    ("transformers", MAMBA2, "time_step_rank=3", "time_step_rank: it changes nothing", "n_groups"),
    ("state-spaces", {}, "ssm_cfg.ngroups=2", "ssm_cfg.ngroups: unknown key", "dt_rank"),
    ("state-spaces", {}, "ssm_cfg.dt_min=0.1", "ssm_cfg.dt_min: it changes nothing", "ssm_cfg.dt_rank"),
    ("state-spaces", {}, "initializer_cfg.scale=2", "initializer_cfg.scale: it changes nothing", "ssm_cfg"),
    ("caduceus", {"bidirectional": True}, "fused_add_norm=false", "fused_add_norm: it changes nothing", "rcps"),
    ("caduceus", {"bidirectional": True}, "complement_map=", "complement_map: it changes nothing", "rcps"),
]


@pytest.mark.parametrize(("dialect", "options", "said", "wrong", "accepted"), WITHOUT_EFFECT)
@pytest.mark.parametrize("guessed", [False, True])
def test_a_setting_without_effect_is_refused_and_the_others_are_named(
    dialect: str,
    options: dict[str, Any],
    said: str,
    wrong: str,
    accepted: str,
    guessed: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = MaskedLM if dialect == "caduceus" else CausalLM
    export_model(small(kind, **options), tmp_path / "a", dialect)
    if guessed:
        (tmp_path / "a" / "config.json").unlink()
    words = ["import", str(tmp_path / "a"), "-o", str(tmp_path / "b")]
    assert main([*words, "--set", said]) == 2
    error = capsys.readouterr().err
    assert wrong in error
    assert accepted in error.partition(wrong)[2]
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()
    assert main(words) == 0  # what nobody set may stand in config.json without an effect


def test_the_command_refuses_what_exists_and_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_model(small(), tmp_path / "a", "state-spaces")
    words = ["import", str(tmp_path / "a"), "-o", str(tmp_path / "b")]
    assert main([*words, "--set", "d_model"]) == 2
    assert "set=d_model: expected key=value" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert main(words) == 0
    assert main(words) == 2
    assert main([*words, "--force"]) == 0
    assert main(["import", str(tmp_path / "a"), "-o", str(tmp_path / "a"), "--force"]) == 2
    assert main(["export", "-m", str(tmp_path / "b"), "--to", "caduceus", "-o", str(tmp_path / "c")]) == 2
    assert "Caduceus has no such model: it is of MaskedLM, this is a CausalLM" in capsys.readouterr().err
    assert main(["export", "-m", str(tmp_path / "b"), "--to", "transformers", "-o", str(tmp_path / "c")]) == 0
