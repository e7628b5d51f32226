"""state-spaces/mamba: `MambaLMHeadModel` with Mamba or Mamba-2 layers. Its tensors have our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genomamba.errors import CheckpointError
from genomamba.interop.boilerplate import BOILERPLATE
from genomamba.interop.fields import Fields, setting
from genomamba.model.config import ModelConfig

# Initial values, speed and precision of training: they change no output in fp32.
HARMLESS = {
    *("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init"),
    *("use_fast_path", "use_mem_eff_path", "chunk_size", "sequence_parallel"),
}
HARMLESS_ABOVE = {"residual_in_fp32", "fused_add_norm", "initializer_cfg"}
MLP_MULTIPLE = 128
EPS = 1e-5


def guess(weights: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the original's words from shapes alone; ``given`` says what shapes cannot (ngroups)."""
    vocabulary, d_model = weights["backbone.embedding.weight"].shape
    layer = guess_mixer(weights, "backbone.layers.0.mixer.", d_model, given)
    config: dict[str, Any] = {
        "d_model": d_model,
        "n_layer": count_layers(weights, "backbone.layers."),
        "vocab_size": vocabulary,
        "pad_vocab_size_multiple": 1,
        "rms_norm": "backbone.norm_f.bias" not in weights,
        "ssm_cfg": layer,
        "tie_embeddings": ties(weights, "lm_head.weight", "backbone.embedding.weight"),
    }
    if "backbone.layers.0.mlp.fc2.weight" in weights:
        config["d_intermediate"] = weights["backbone.layers.0.mlp.fc2.weight"].shape[1]
    return config


def guess_mixer(weights: Mapping[str, Tensor], prefix: str, d_model: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """``ssm_cfg`` from the shapes of one mixer.

    Raises:
        CheckpointError: tensors of a Mamba mixer are missing.
    """
    needed = ("A_log", "D", "conv1d.weight", "in_proj.weight", "out_proj.weight")
    absent = [prefix + name for name in needed if prefix + name not in weights]
    if absent:
        raise CheckpointError(f"missing {', '.join(absent)}", "give a whole checkpoint of Mamba layers")
    d_inner = weights[prefix + "out_proj.weight"].shape[1]
    convolved, _, d_conv = weights[prefix + "conv1d.weight"].shape
    config: dict[str, Any] = {
        "d_conv": d_conv,
        "expand": d_inner // d_model,
        "bias": prefix + "in_proj.bias" in weights,
        "conv_bias": prefix + "conv1d.bias" in weights,
    }
    heads = weights[prefix + "A_log"].shape[0]
    if prefix + "dt_bias" not in weights:
        rank = weights[prefix + "dt_proj.weight"].shape[1] if prefix + "dt_proj.weight" in weights else "auto"
        return {"layer": "Mamba1", **config, "d_state": weights[prefix + "A_log"].shape[1], "dt_rank": rank}
    groups = setting(given, "ssm_cfg.ngroups", setting(given, "n_groups", 1))
    shared = (weights[prefix + "in_proj.weight"].shape[0] - 2 * d_inner - heads) // 2  # ngroups · d_state
    scanned = convolved - 2 * shared
    return {
        "layer": "Mamba2",
        **config,
        "d_state": shared // groups,
        "ngroups": groups,
        "headdim": scanned // heads,
        "d_ssm": scanned,
        "rmsnorm": prefix + "norm.weight" in weights,
        "D_has_hdim": weights[prefix + "D"].shape[0] != heads,
    }


def config(fields: Fields, weights: Mapping[str, Tensor]) -> ModelConfig:
    """The original's MambaConfig as ours.

    Raises:
        CheckpointError: a key that is unknown, or asks for what is not built here.
    """
    if fields.raw("attn_layer_idx") or fields.raw("attn_cfg"):
        raise CheckpointError(
            "its attention layers (with their own convolution) cannot be imported",
            "choose a checkpoint without attention",
            file=fields.path,
            field="attn_layer_idx",
        )
    wide = fields.take("d_intermediate", 0)
    result = ModelConfig(
        d_model=fields.take("d_model", 2560),
        n_layer=fields.take("n_layer", 64),
        vocab_size=fields.take("vocab_size", 50277),
        pad_vocab_size_multiple=fields.take("pad_vocab_size_multiple", 8),
        tie_embeddings=fields.take("tie_embeddings", True),
        rms_norm=fields.take("rms_norm", True),
        norm_eps=fields.take("norm_epsilon", 1e-5),
        d_mlp=-(-wide // MLP_MULTIPLE) * MLP_MULTIPLE if wide and not _exact(weights, wide) else wide,
        **mixer_options(fields.group("ssm_cfg"), default_state={"Mamba1": 16, "Mamba2": 128}),
    )
    fields.done(BOILERPLATE | HARMLESS_ABOVE)
    return result


def mixer_options(fields: Fields, default_state: Mapping[str, int]) -> dict[str, Any]:
    """``ssm_cfg`` as fields of ModelConfig."""
    layer = fields.take("layer", "Mamba1")
    if layer not in default_state:
        raise fields.error("layer", layer, f"only {' and '.join(default_state)} can be imported")
    options: dict[str, Any] = {
        "layers": {"Mamba1": "mamba", "Mamba2": "mamba2"}[layer],
        "d_state": fields.take("d_state", default_state[layer]),
        "d_conv": fields.take("d_conv", 4),
        "expand": fields.take("expand", 2),
        "bias": fields.take("bias", False),
        "conv_bias": fields.take("conv_bias", True),
    }
    if layer == "Mamba1":
        rank = fields.raw("dt_rank", "auto")
        options["dt_rank"] = None if rank == "auto" else rank
    else:
        low, high = limits(fields, "dt_limit")
        options |= {
            "headdim": fields.take("headdim", 64),
            "ngroups": fields.take("ngroups", 1),
            "d_ssm": fields.raw("d_ssm"),
            "gated_norm": fields.take("rmsnorm", True),
            "norm_before_gate": fields.take("norm_before_gate", False),
            "D_per_channel": fields.take("D_has_hdim", False),
            "ssd_tf32": fields.take("tf32", True),  # our word for how the original's kernels multiply
            "dt_limit_min": low,
            "dt_limit_max": high,
        }
    fields.done(HARMLESS)
    return options


def limits(fields: Fields, key: str) -> tuple[float, float | None]:
    """A pair of bounds of the step size; an infinite upper one is None."""
    value = fields.raw(key, [0.0, float("inf")])
    plain = [float(v["__float__"]) if isinstance(v, Mapping) and "__float__" in v else v for v in value]
    if len(plain) != 2 or not all(isinstance(v, (int, float)) for v in plain):
        raise fields.error(key, value, "expected two numbers")
    return float(plain[0]), None if plain[1] == float("inf") else float(plain[1])


def count_layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)}
    return max(numbers, default=-1) + 1


def ties(weights: Mapping[str, Tensor], head: str, embedding: str) -> bool:
    """Whether the head is the embedding: it is absent, or the same numbers."""
    return head not in weights or bool(
        weights[head].shape == weights[embedding].shape and (weights[head] == weights[embedding]).all()
    )


def _exact(weights: Mapping[str, Tensor], wide: int) -> bool:
    down = weights.get("backbone.layers.0.mlp.fc2.weight")
    return down is not None and down.shape[1] == wide


def their_name(name: str, model: ModelConfig) -> str:
    """What the original calls our tensor ``name``."""
    return name


def repeated(model: ModelConfig) -> dict[str, str]:
    """Tensors that the original writes a second time, and what they repeat."""
    return {"lm_head.weight": "backbone.embedding.weight"} if model.tie_embeddings else {}


def unexportable(model: ModelConfig) -> str | None:
    """Why the original has no such model; None where it has."""
    if not model.is_causal:
        return "it reads one strand in one direction"
    if set(model.mixers) not in ({"mamba"}, {"mamba2"}):
        return "its layers are all mamba or all mamba2"
    if model.norm_eps != EPS:
        return f"its norm_eps is {EPS}"
    if model.d_mlp % MLP_MULTIPLE:
        return f"its d_mlp is a multiple of {MLP_MULTIPLE}"
    return None


def export_config(model: ModelConfig) -> dict[str, Any]:
    """Our configuration as the original's MambaConfig."""
    return {
        "d_model": model.d_model,
        "d_intermediate": model.d_mlp,
        "n_layer": model.n_layer,
        "vocab_size": model.vocab_size,
        "ssm_cfg": export_mixer(model),
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": model.rms_norm,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": model.pad_vocab_size_multiple,
        "tie_embeddings": model.tie_embeddings,
    }


def export_mixer(model: ModelConfig) -> dict[str, Any]:
    """``ssm_cfg`` of our configuration."""
    options: dict[str, Any] = {
        "d_state": model.d_state,
        "d_conv": model.d_conv,
        "expand": model.expand,
        "bias": model.bias,
        "conv_bias": model.conv_bias,
    }
    if model.mixers[0] == "mamba":
        return {"layer": "Mamba1", **options, "dt_rank": model.dt_rank_resolved}
    options |= {
        "headdim": model.headdim,
        "ngroups": model.ngroups,
        "d_ssm": model.d_ssm,
        "rmsnorm": model.gated_norm,
        "norm_before_gate": model.norm_before_gate,
        "D_has_hdim": model.D_per_channel,
    }
    if model.dt_limit_min or model.dt_limit_max is not None:
        high = float("inf") if model.dt_limit_max is None else model.dt_limit_max
        options["dt_limit"] = [model.dt_limit_min, high]
    return {"layer": "Mamba2", **options}
