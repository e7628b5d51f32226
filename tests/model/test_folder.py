"""A model folder: what is written reads back, and what is damaged is refused by name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from genomamba.errors import CheckpointError
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig, SequenceHeadConfig, VariantHeadConfig
from genomamba.model.folder import initialise_backbone, load_model, save_model
from genomamba.model.heads import VariantClassifier
from genomamba.model.sequence_heads import SequenceModel, TokenModel

CONFIG = ModelConfig(d_model=16, n_layer=1, d_state=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(CausalLM(CONFIG), tmp_path / "m", card="# A card", provenance={"window": 64})
    return tmp_path / "m"


@pytest.mark.parametrize("tied", [True, False])
def test_language_model_reads_back(tmp_path: Path, tied: bool) -> None:
    model = CausalLM(ModelConfig(d_model=16, n_layer=1, tie_embeddings=tied))
    save_model(model, tmp_path, card="", provenance={})
    again = load_model(tmp_path)
    assert again.config == model.config
    assert not again.training
    ids = torch.randint(7, 11, (2, 20))
    assert torch.equal(again(ids), model.eval()(ids))


def test_classifier_reads_back_with_its_calibration(tmp_path: Path) -> None:
    model = VariantClassifier(CONFIG, VariantHeadConfig(d_hidden=5))
    model.slope.fill_(1.7)
    model.intercept.fill_(-0.4)
    model.threshold.fill_(0.3)
    save_model(model, tmp_path, card="", provenance={})
    again = load_model(tmp_path)
    assert isinstance(again, VariantClassifier)
    assert again.head_config == model.head_config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c"], []])
def test_sequence_model_reads_back_with_its_classes_and_calibration(tmp_path: Path, classes: list[str]) -> None:
    head = SequenceHeadConfig(pooling="regions", strands="joined", d_hidden=3, regions=2)
    model = SequenceModel(CONFIG, head, classes).eval()
    for number, name in enumerate(("temperature", "threshold", "center", "scale"), start=2):
        getattr(model, name).fill_(number)
    model.log_weight.normal_()
    save_model(model, tmp_path, card="", provenance={})
    again = load_model(tmp_path)
    assert isinstance(again, SequenceModel)
    assert (again.head_config, again.classes) == (head, tuple(classes))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    ids = torch.randint(7, 11, (2, 20))
    assert torch.equal(again(ids), model(ids))


@pytest.mark.parametrize(("link", "form"), [("identity", 1), ("log", 2)])
def test_what_an_older_version_would_misread_has_a_format_that_it_refuses(tmp_path: Path, link: Any, form: int) -> None:
    model = TokenModel(CONFIG, ["a", "b"], link=link).eval()
    save_model(model, tmp_path, card="", provenance={})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format"] == form
    ids = torch.randint(7, 11, (2, 20))
    for known in (1, 2):  # folders of a link were written in the first format too
        (tmp_path / "config.json").write_text(json.dumps(config | {"format": known}))
        again = load_model(tmp_path)
        assert isinstance(again, TokenModel)
        assert again.link == link
        assert torch.equal(again(ids), model(ids))


@pytest.mark.parametrize("form", [0, 3, "2", None, [1], {}])
def test_a_format_that_is_not_known_is_refused(folder: Path, form: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": form}))
    with pytest.raises(CheckpointError, match=r"config.json: format.*: this version reads formats 1 and 2; "):
        load_model(folder)


def test_classes_that_are_no_names_are_refused(tmp_path: Path) -> None:
    save_model(SequenceModel(CONFIG, classes=["a", "b"]), tmp_path, card="", provenance={})
    config = json.loads((tmp_path / "config.json").read_text())
    for classes in (None, ["a"], ["a", 1], ["a", "b\tc"]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"classes": classes}))
        with pytest.raises(CheckpointError, match=r"config.json: classes.*must list the names of two classes"):
            load_model(tmp_path)


@pytest.mark.parametrize("kind", [CausalLM, MaskedLM])
def test_sequence_model_starts_from_a_language_model(kind: type[CausalLM] | type[MaskedLM]) -> None:
    pretrained, model = kind(CONFIG), SequenceModel(CONFIG, classes=["a", "b"])
    initialise_backbone(model, pretrained)
    ids = torch.randint(7, 11, (1, 20))
    assert torch.equal(model.backbone(ids)[0], pretrained.backbone(ids)[0])


def test_classifier_starts_from_the_language_model() -> None:
    pretrained, model = CausalLM(CONFIG), VariantClassifier(CONFIG, VariantHeadConfig())
    initialise_backbone(model, pretrained)
    ids = torch.randint(7, 11, (1, 20))
    assert torch.equal(model.lm_head(model.backbone(ids)[0]), pretrained(ids))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))


def missing_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["backbone.norm_f.weight"]
    weights["backbone.surprise"] = torch.zeros(3)
    safetensors.torch.save_file(weights, path)


def other_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["d_model"] = 32
    (folder / "config.json").write_text(json.dumps(config))


def unknown_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["d_modle"] = 32
    (folder / "config.json").write_text(json.dumps(config))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def others_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def task_is_no_word(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"task": []}))


def later_format(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a stranger's pickle was executed",))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, ["model.safetensors", "cut or not safetensors"]),
        (pickled_weights, ["model.safetensors", "cut or not safetensors"]),
        (missing_tensor, ["missing backbone.norm_f.weight (16,)", "left over backbone.surprise (3,)"]),
        (other_width, ["disagree", "conv1d.bias is (32,), the configuration asks for (64,)"]),
        (unknown_key, ["config.json: model.d_modle: unknown key; the nearest is d_model"]),
        (no_config, ["config.json: it is missing"]),
        (config_is_no_json, ["config.json: it is not a model configuration"]),
        (task_is_no_word, ["config.json: it is not a model configuration", "task must be a word"]),
        (later_format, ["format=99", "reads formats 1 and 2; install a newer genomamba"]),
        (others_config, ["config.json: it is not GenoMamba's own; `genomamba import` makes a model folder"]),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(Exception, match="No space left on device"):
        save_model(CausalLM(CONFIG), folder, card="", provenance={})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
