"""Caduceus (Schiff et al. 2024): `CaduceusForMaskedLM`, its strands sharing parameters (PS) or not (Ph)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genomamba.errors import CheckpointError
from genomamba.genome import alphabet
from genomamba.interop.boilerplate import BOILERPLATE
from genomamba.interop.fields import Fields
from genomamba.interop.state_spaces import (
    HARMLESS_ABOVE,
    count_layers,
    export_mixer,
    guess_mixer,
    mixer_options,
    ties,
)
from genomamba.model.backbone import complement_ids
from genomamba.model.config import ModelConfig

BACKBONE = "caduceus.backbone."
EMBEDDING = BACKBONE + "embeddings.word_embeddings."
# The weights hold the one, padded to the vocabulary; some versions of transformers do not obey the other.
IN_THE_WEIGHTS = {"complement_map", "tie_word_embeddings"}
MAPS = (EMBEDDING + "complement_map", "lm_head.complement_map")


def guess(weights: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the original's words from names and shapes alone.

    The norm's order shows in its name only where strands share parameters; elsewhere it changes nothing.
    """
    rcps = EMBEDDING + "embedding.weight" in weights
    vocabulary, d_model = weights[EMBEDDING + ("embedding.weight" if rcps else "weight")].shape
    first = BACKBONE + "layers.0."
    mixer = first + ("mixer.submodule." if rcps else "mixer.")
    layer = guess_mixer(weights, mixer + "mamba_fwd.", d_model, given)
    del layer["layer"]
    back = mixer + "mamba_rev."
    return {
        "d_model": d_model,
        "n_layer": count_layers(weights, BACKBONE + "layers."),
        "vocab_size": vocabulary,
        "pad_vocab_size_multiple": 1,
        "rms_norm": not any(name.startswith(BACKBONE + "norm_f") and name.endswith("bias") for name in weights),
        "fused_add_norm": first + "norm.submodule.weight" not in weights,
        "ssm_cfg": layer,
        "bidirectional": back + "A_log" in weights,
        "bidirectional_weight_tie": all(
            ties(weights, back + name, back.replace("_rev", "_fwd") + name)
            for name in ("in_proj.weight", "out_proj.weight")
        ),
        "rcps": rcps,
    }


def config(fields: Fields, weights: Mapping[str, Tensor]) -> ModelConfig:
    """CaduceusConfig as ours.

    Raises:
        CheckpointError: a key that is unknown, or asks for what is not built here.
    """
    rcps = fields.take("rcps", False)
    strategy = fields.raw("bidirectional_strategy", "add")
    if strategy not in ("add", "ew_multiply"):
        raise fields.error("bidirectional_strategy", strategy, "only add and ew_multiply can be imported")
    result = ModelConfig(
        d_model=fields.take("d_model", 2560),
        n_layer=fields.take("n_layer", 64),
        vocab_size=fields.take("vocab_size", 50277),
        pad_vocab_size_multiple=fields.take("pad_vocab_size_multiple", 8),
        tie_embeddings=_head_is_embedding(weights, rcps),
        rms_norm=fields.take("rms_norm", True),
        norm_eps=fields.take("norm_epsilon", 1e-5),
        bidirectional=fields.take("bidirectional", True),
        bidirectional_strategy=strategy,
        bidirectional_weight_tie=fields.take("bidirectional_weight_tie", True),
        rc_equivariant=rcps,
        rc_strand_order="swapped" if rcps and fields.take("fused_add_norm", True) else "kept",
        complement=_complement(weights, fields.path) if rcps else None,
        **mixer_options(fields.group("ssm_cfg"), default_state={"Mamba1": 16}),
    )
    fields.done(BOILERPLATE | HARMLESS_ABOVE | IN_THE_WEIGHTS)
    return result


def _head_is_embedding(weights: Mapping[str, Tensor], rcps: bool) -> bool:
    head, embedding = ("lm_head.lm_head.weight", "embedding.weight") if rcps else ("lm_head.weight", "weight")
    return EMBEDDING + embedding in weights and ties(weights, head, EMBEDDING + embedding)


def _complement(weights: Mapping[str, Tensor], path: Path) -> list[int]:
    maps = [weights[name] for name in MAPS if name in weights]
    if len(maps) != len(MAPS) or not torch.equal(*maps):
        raise CheckpointError(f"{' and '.join(MAPS)} are missing or differ", "restore the file", file=path)
    return maps[0].tolist()


def their_name(name: str, model: ModelConfig) -> str:
    """What the original calls our tensor ``name``."""
    inside = "submodule." if model.rc_equivariant else ""
    inside_norm = inside if model.rc_strand_order == "kept" else ""  # a fused norm has no wrapper
    if name == "lm_head.weight":
        return "lm_head.lm_head.weight" if model.rc_equivariant else name
    name = name.removeprefix("backbone.")
    if name == "embedding.weight":
        return EMBEDDING + ("embedding.weight" if model.rc_equivariant else "weight")
    if model.bidirectional:
        name = name.replace("mixer.ahead.", f"mixer.{inside}mamba_fwd.")
        name = name.replace("mixer.back.", f"mixer.{inside}mamba_rev.")
    else:
        name = name.replace("mixer.", f"mixer.{inside}mamba_fwd.")
    return BACKBONE + re.sub(r"\b(norm|norm_f)\.(?=weight|bias)", rf"\1.{inside_norm}", name)


def repeated(model: ModelConfig) -> dict[str, str]:
    """Tensors that the original writes a second time, and what they repeat."""
    twice: dict[str, str] = {}
    if model.tie_embeddings:
        twice[their_name("lm_head.weight", model)] = their_name("backbone.embedding.weight", model)
    if model.bidirectional and model.bidirectional_weight_tie:
        for layer in range(model.n_layer):
            for name in ("in_proj", "out_proj"):
                for kind in ("weight", "bias") if model.bias else ("weight",):
                    ours = f"backbone.layers.{layer}.mixer.ahead.{name}.{kind}"
                    theirs = their_name(ours, model)
                    twice[theirs.replace("mamba_fwd", "mamba_rev")] = theirs
    return twice


def constants(model: ModelConfig) -> dict[str, Tensor]:
    """Tensors that the original writes and that our configuration holds."""
    if not model.rc_equivariant:
        return {}
    return {name: complement_ids(model) for name in MAPS}


def unexportable(model: ModelConfig) -> str | None:
    """Why the original has no such model; None where it has."""
    if set(model.mixers) != {"mamba"} or model.d_mlp:
        return "its layers are all mamba, without MLPs"
    if model.bidirectional and model.bidirectional_strategy == "concat":
        return "it adds or multiplies the two directions"
    return None


def export_config(model: ModelConfig) -> dict[str, Any]:
    """Our configuration as CaduceusConfig."""
    mixer = export_mixer(model)
    del mixer["layer"]
    exported: dict[str, Any] = {
        "architectures": ["CaduceusForMaskedLM"],
        "model_type": "caduceus",
        "d_model": model.d_model,
        "n_layer": model.n_layer,
        "vocab_size": model.padded_vocab_size,
        "ssm_cfg": mixer,
        "rms_norm": model.rms_norm,
        "residual_in_fp32": False,
        "fused_add_norm": not model.rc_equivariant or model.rc_strand_order == "swapped",
        "pad_vocab_size_multiple": model.pad_vocab_size_multiple,
        "norm_epsilon": model.norm_eps,
        "bidirectional": model.bidirectional,
        "bidirectional_strategy": model.bidirectional_strategy if model.bidirectional else None,
        "bidirectional_weight_tie": model.bidirectional_weight_tie,
        "rcps": model.rc_equivariant,
        "tie_word_embeddings": model.tie_embeddings,
        "pad_token_id": alphabet.PAD,
    }
    if model.rc_equivariant:
        exported["complement_map"] = {str(i): other for i, other in enumerate(constants(model)[MAPS[0]].tolist())}
    return exported
