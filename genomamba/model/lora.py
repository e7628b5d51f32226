"""Low-rank adapters (Hu et al. 2021) through peft, on the plain projections of a model, with proof that they act."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genomamba.errors import ConfigError, GenoMambaError

PROJECTIONS = ("in_proj", "x_proj", "out_proj")


class IdleAdapterError(GenoMambaError):
    """An adapter was added where the model's output does not pass through it."""


def add_lora(
    model: nn.Module,
    forward: Callable[[Any], Tensor],
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: Sequence[str] = PROJECTIONS,
    train_too: Sequence[str] = (),
) -> Any:
    """Freezes a model and gives its projections trainable low-rank updates.

    Args:
        model: any of ours; its Linears are replaced in place.
        forward: runs the adapted model on a probe and returns its output; used once, to check that the gradient
            of every adapter is not zero.
        rank: of each update.
        alpha: updates are scaled by alpha / rank.
        dropout: on an adapter's input in training.
        targets: last names of the Linears to adapt.
        train_too: names of modules that are trained whole, such as a new head.

    Returns:
        peft's `PeftModel`; ``merge_and_unload()`` gives a plain model with the updates added in.

    Raises:
        ConfigError: peft is not installed, or a target matches no Linear.
        IdleAdapterError: an adapter has no effect; its name is in the message.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("LoRA needs a package", "install genomamba[peft]", field="lora") from error
    linears = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in targets:
        if target not in linears:
            raise ConfigError(
                "no Linear of that name", f"choose from {', '.join(sorted(linears))}", field="targets", value=target
            )
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=list(targets),
            modules_to_save=list(train_too) or None,
        ),
    )
    idle = idle_adapters(adapted, forward)
    if idle:
        raise IdleAdapterError(f"adapters without effect: {', '.join(idle)}; choose other targets")
    return adapted


def idle_adapters(adapted: nn.Module, forward: Callable[[Any], Tensor]) -> list[str]:
    """Names of the adapters through which the output of ``forward(adapted)`` does not pass.

    An adapter starts as A B with B = 0, so the gradient of B says whether it is in the output's way.
    """
    up = {name: p for name, p in adapted.named_parameters() if ".lora_B." in name}
    training = adapted.training
    adapted.eval()
    try:
        output = forward(adapted)
        # A sum of outputs could have no slope by symmetry; weights that differ leave none to chance.
        weight = torch.linspace(-1, 2, output.numel(), device=output.device, dtype=output.dtype).view_as(output)
        slopes = torch.autograd.grad((weight * output).sum(), list(up.values()), allow_unused=True)
    finally:
        adapted.train(training)
    return [name for (name, _), slope in zip(up.items(), slopes, strict=True) if slope is None or not slope.any()]
