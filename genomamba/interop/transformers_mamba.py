"""Hugging Face transformers: `MambaForCausalLM` and `Mamba2ForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genomamba.genome import alphabet
from genomamba.interop.boilerplate import BOILERPLATE
from genomamba.interop.fields import Fields
from genomamba.interop.state_spaces import count_layers, guess_mixer, limits, ties
from genomamba.model.config import ModelConfig

EMBEDDING = "backbone.embeddings.weight"
# Initial values, speed, what follows from other keys, and what older conversions left behind and nothing reads.
HARMLESS = {
    *("chunk_size", "initializer_range", "intermediate_size", "residual_in_fp32"),
    *("rescale_prenorm_residual", "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min"),
    *("time_step_scale", "use_associative_scan", "use_mambapy", "d_inner", "d_model", "fused_add_norm", "n_layer"),
    *("rms_norm", "ssm_cfg", "vocab_multiple", "pad_vocab_size_multiple", "norm_before_gate"),
}


def guess(weights: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the original's words from shapes alone; ``given`` says what shapes cannot (n_groups)."""
    vocabulary, d_model = weights[EMBEDDING].shape
    mixer = guess_mixer(weights, "backbone.layers.0.mixer.", d_model, given)
    config: dict[str, Any] = {
        "model_type": {"Mamba1": "mamba", "Mamba2": "mamba2"}[mixer["layer"]],
        "hidden_size": d_model,
        "num_hidden_layers": count_layers(weights, "backbone.layers."),
        "vocab_size": vocabulary,
        "state_size": mixer["d_state"],
        "conv_kernel": mixer["d_conv"],
        "expand": mixer["expand"],
        "use_bias": mixer["bias"],
        "use_conv_bias": mixer["conv_bias"],
        "tie_word_embeddings": ties(weights, "lm_head.weight", EMBEDDING),
    }
    if mixer["layer"] == "Mamba1":
        return config | {"time_step_rank": mixer["dt_rank"]}
    heads = mixer["d_ssm"] // mixer["headdim"]
    return config | {"num_heads": heads, "head_dim": mixer["headdim"], "n_groups": mixer["ngroups"]}


def config(fields: Fields, weights: Mapping[str, Tensor]) -> ModelConfig:
    """MambaConfig or Mamba2Config of transformers as ours.

    Raises:
        CheckpointError: a key that is unknown, or asks for what is not built here.
    """
    kind = fields.take("model_type", "mamba")
    if kind not in ("mamba", "mamba2"):
        raise fields.error("model_type", kind, "only mamba and mamba2 can be imported")
    second = kind == "mamba2"
    activation = fields.take("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise fields.error("hidden_act", activation, "only silu can be imported")
    options: dict[str, Any]
    if second:
        low, high = limits(fields, "time_step_limit")
        options = {
            "layers": "mamba2",
            "headdim": fields.take("head_dim", 64),
            "ngroups": fields.take("n_groups", 8),
            "dt_limit_min": low,
            "dt_limit_max": high,
        }
        heads = fields.take("num_heads", 128)
    else:
        rank = fields.raw("time_step_rank", "auto")
        options = {"dt_rank": None if rank == "auto" else rank}
    result = ModelConfig(
        d_model=fields.take("hidden_size", 4096 if second else 768),
        n_layer=fields.take("num_hidden_layers", 64 if second else 32),
        d_state=fields.take("state_size", 128 if second else 16),
        d_conv=fields.take("conv_kernel", 4),
        expand=fields.take("expand", 2),
        norm_eps=fields.take("layer_norm_epsilon", 1e-5),
        vocab_size=fields.take("vocab_size", 32768 if second else 50280),
        pad_vocab_size_multiple=1,
        tie_embeddings=fields.take("tie_word_embeddings", not second),
        bias=fields.take("use_bias", False),
        conv_bias=fields.take("use_conv_bias", True),
        **options,
    )
    if second and heads * result.headdim != result.d_inner:
        raise fields.error("num_heads", heads, "num_heads * head_dim is not expand * hidden_size")
    fields.done(BOILERPLATE | HARMLESS | ({"time_step_rank"} if second else set()))
    return result


def their_name(name: str, model: ModelConfig) -> str:
    """What the original calls our tensor ``name``."""
    return EMBEDDING if name == "backbone.embedding.weight" else name


def repeated(model: ModelConfig) -> dict[str, str]:
    """Tensors that the original may write a second time, and what they repeat."""
    return {"lm_head.weight": EMBEDDING} if model.tie_embeddings else {}


def unexportable(model: ModelConfig) -> str | None:
    """Why transformers has no such model; None where it has."""
    if not model.is_causal:
        return "it reads one strand in one direction"
    kinds = set(model.mixers)
    if kinds not in ({"mamba"}, {"mamba2"}) or model.d_mlp:
        return "its layers are all mamba or all mamba2, without MLPs"
    if not model.rms_norm:
        return "its norm is RMSNorm"
    plain = model.gated_norm and not model.norm_before_gate and not model.D_per_channel
    if kinds == {"mamba2"} and not (plain and model.d_scanned == model.d_inner):
        return "its mamba2 has gated_norm, no norm_before_gate, no D_per_channel and no d_ssm"
    return None


def export_config(model: ModelConfig) -> dict[str, Any]:
    """Our configuration as transformers' MambaConfig or Mamba2Config."""
    exported: dict[str, Any] = {
        "hidden_size": model.d_model,
        "num_hidden_layers": model.n_layer,
        "vocab_size": model.padded_vocab_size,
        "state_size": model.d_state,
        "conv_kernel": model.d_conv,
        "expand": model.expand,
        "use_bias": model.bias,
        "use_conv_bias": model.conv_bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": model.norm_eps,
        "tie_word_embeddings": model.tie_embeddings,
        "pad_token_id": alphabet.PAD,
        "bos_token_id": alphabet.BOS,
        "eos_token_id": alphabet.SEP,
        "dtype": "float32",
    }
    if model.mixers[0] == "mamba":
        names = {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}
        return names | exported | {"time_step_rank": model.dt_rank_resolved}
    exported |= {
        "num_heads": model.d_inner // model.headdim,
        "head_dim": model.headdim,
        "n_groups": model.ngroups,
    }
    if model.dt_limit_min or model.dt_limit_max is not None:
        high = {"__float__": "Infinity"} if model.dt_limit_max is None else model.dt_limit_max
        exported["time_step_limit"] = [model.dt_limit_min, high]
    return {"architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2"} | exported
