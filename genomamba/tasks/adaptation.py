"""Which weights of a pretrained model are trained: all of them, the head, or low-rank updates and the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from genomamba.model.lora import PROJECTIONS, add_lora
from genomamba.tasks.config import LoraConfig, Method

HEAD_PARTS = ("pool", "head")


def prepare(
    model: nn.Module, method: Method, lora: LoraConfig, forward: Callable[[Any], Tensor]
) -> Callable[[], object]:
    """Freezes what is not to be trained, and adds adapters where they are asked for.

    Args:
        model: with a ``backbone`` and a ``head``; changed in place.
        method: ``full``, ``head`` or ``lora``; a ``probe`` trains nothing here.
        lora: rank and targets.
        forward: runs the model on an example; see `add_lora`.

    Returns:
        To be called after training: makes the model a plain one again, updates added in.
    """
    if method == "full":
        return lambda: None
    heads = [part for name, part in model.named_children() if name in HEAD_PARTS]
    if method == "lora":
        known = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        targets = lora.targets or [name for name in PROJECTIONS if name in known]
        adapted = add_lora(model, forward, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=targets)
    else:
        adapted = None
        model.requires_grad_(False)
    for part in heads:
        part.requires_grad_(True)
    return (lambda: None) if adapted is None else adapted.merge_and_unload
