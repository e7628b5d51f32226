"""A model on disk: a folder of config.json, model.safetensors, README.md (the model card), provenance.json.

Nothing in it is executed: weights are safetensors, the rest is JSON and text.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.kernels.selective_scan import Impl
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig, SequenceHeadConfig, VariantHeadConfig
from genomamba.model.folder_files import (
    CARD,
    CAUSAL,
    CONFIG,
    LINKED,
    MASKED,
    PLAIN,
    PROVENANCE,
    SEQUENCE,
    TOKEN,
    VARIANT,
    WEIGHTS,
    read_config,
    track_link,
    track_names,
)
from genomamba.model.heads import VariantClassifier
from genomamba.model.sequence_heads import SequenceModel, TokenModel
from genomamba.model.trees import TreeHead, TreeShape

TASKS: dict[str, type[CausalLM] | type[MaskedLM]] = {CAUSAL: CausalLM, MASKED: MaskedLM}

AnyModel = CausalLM | MaskedLM | VariantClassifier | SequenceModel | TokenModel


def save_model(model: AnyModel, folder: str | PathLike[str], *, card: str, provenance: Mapping[str, Any]) -> None:
    """Writes the four files; each appears whole or not at all, config.json last.

    Args:
        model: the model; its weights are written in fp32.
        folder: created when missing.
        card: Markdown for people.
        provenance: what made it: resolved configuration, versions, data fingerprints.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = described(model)
    with whole_file(folder / WEIGHTS) as path:
        safetensors.torch.save_file(_saved_tensors(model), path)
    for name, text in (
        (CARD, card),
        (PROVENANCE, json.dumps(provenance, indent=2, default=str) + "\n"),
        (CONFIG, json.dumps(config, indent=2) + "\n"),
    ):
        with whole_file(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def load_model(folder: str | PathLike[str], *, impl: Impl = "auto") -> AnyModel:
    """Reads a model folder; the model is on the CPU, in fp32, in eval mode.

    Raises:
        CheckpointError: a file is missing, cut or of another kind, or configuration and weights disagree.
    """
    folder = Path(folder)
    config_path, weights_path = folder / CONFIG, folder / WEIGHTS
    config = read_config(folder)
    task = config["task"]
    try:
        model_config = _from_json(ModelConfig, config["model"], config_path, "model")
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"it is not a model configuration ({error!r})", "restore the file", file=config_path
        ) from error
    model: AnyModel
    trees = _from_json(TreeShape, config["trees"], config_path, "trees") if "trees" in config else None
    if task in TASKS:
        model = TASKS[task](model_config, impl)
    elif task == VARIANT:
        head = _from_json(VariantHeadConfig, config.get("head", {}), config_path, "head")
        model = VariantClassifier(model_config, head, impl, trees)
    elif task == SEQUENCE:
        head = _from_json(SequenceHeadConfig, config.get("head", {}), config_path, "head")
        model = SequenceModel(model_config, head, _classes(config.get("classes"), config_path), impl, trees)
    elif task == TOKEN:
        model = TokenModel(model_config, track_names(config, folder), impl, track_link(config, folder))
    else:
        raise CheckpointError("no such task", "install a newer genomamba", file=config_path, field="task", value=task)
    try:
        weights = safetensors.torch.load_file(weights_path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"it is cut or not safetensors ({error})", "restore the file or train again", file=weights_path
        ) from error
    _load_every_key(model, weights, weights_path)
    return model.eval()


def described(model: AnyModel) -> dict[str, Any]:
    """What ``config.json`` says of a model: all of it but its weights."""
    form = LINKED if isinstance(model, TokenModel) and model.link != "identity" else PLAIN
    config: dict[str, Any] = {"format": form, "task": task_of(model), "model": dataclasses.asdict(model.config)}
    if isinstance(model, VariantClassifier | SequenceModel):
        config["head"] = dataclasses.asdict(model.head_config)
    if isinstance(model, SequenceModel):
        config["classes"] = list(model.classes)
    if isinstance(model, TokenModel):
        config["tracks"] = list(model.tracks)
        config["link"] = model.link
    head = getattr(model, "head", None)
    if isinstance(head, TreeHead):
        config["trees"] = dataclasses.asdict(head.shape)
    return config


def loaded_fingerprint(model: AnyModel) -> str:
    """SHA-256 of a model's weights as they are in memory, whoever's file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_saved_tensors(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_fingerprint(folder: str | PathLike[str]) -> str:
    """The weights' SHA-256, as `sha256sum` prints it; it ties figures and scores to the model that gave them."""
    return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()


def model_fingerprint(model: AnyModel) -> str:
    """What `weights_fingerprint` says of a folder that `save_model` makes of ``model``, whatever it was read from."""
    return hashlib.sha256(safetensors.torch.save(_saved_tensors(model))).hexdigest()


def initialise_backbone(model: VariantClassifier | SequenceModel | TokenModel, pretrained: CausalLM | MaskedLM) -> None:
    """Copies the pretrained language model into another model, as far as that has the same parts."""
    model.backbone.load_state_dict(pretrained.backbone.state_dict())
    if isinstance(model, VariantClassifier):
        model.lm_head.load_state_dict(pretrained.lm_head.state_dict())


def task_of(model: nn.Module) -> str:
    """The word for the model's kind in config.json."""
    kinds = {**TASKS, SEQUENCE: SequenceModel, TOKEN: TokenModel}
    return next((task for task, kind in kinds.items() if isinstance(model, kind)), VARIANT)


def _saved_tensors(model: AnyModel) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu().float().contiguous() for name, t in _own_tensors(model).items()}


def _own_tensors(model: AnyModel) -> dict[str, torch.Tensor]:
    """The state dict without the output head where that is the embedding."""
    tensors = dict(model.state_dict())
    if model.config.tie_embeddings and not isinstance(model, SequenceModel | TokenModel):
        del tensors["lm_head.weight"]
    return tensors


def _load_every_key(model: AnyModel, weights: dict[str, torch.Tensor], path: Path) -> None:
    own = _own_tensors(model)
    wrong = [f"missing {name} {tuple(own[name].shape)}" for name in sorted(own.keys() - weights.keys())]
    wrong += [f"left over {name} {tuple(weights[name].shape)}" for name in sorted(weights.keys() - own.keys())]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, the configuration asks for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    if wrong:
        shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise CheckpointError(
            f"weights and {CONFIG} disagree: {shown}", "put the two files of one model together", file=path
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _classes(names: Any, path: Path) -> list[str]:
    if not isinstance(names, list) or not all(_is_name(name) for name in names) or len(names) == 1:
        raise CheckpointError(
            "it must list the names of two classes or more, without control characters, or be empty for a regression",
            "restore the file",
            file=path,
            field="classes",
            value=names,
        )
    return names


def _is_name(name: Any) -> bool:
    """Whether it may head a column of a TSV."""
    return isinstance(name, str) and name.isprintable()


def _from_json(cls: type, values: Mapping[str, Any], path: Path, field: str) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"the nearest is {near[0]}" if near else f"it knows {', '.join(known)}"
            raise CheckpointError("unknown key", hint, file=path, field=f"{field}.{key}")
    return cls(**values)
