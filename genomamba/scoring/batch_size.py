"""How much goes through a model at once: as much as memory is likely to hold, and less when it does not."""

from __future__ import annotations

from typing import NamedTuple

import torch

from genomamba.errors import UserError
from genomamba.model.config import ModelConfig

CPU_BYTES = 256 << 20  # more would not be faster: a pass of this size fills every core
GPU_SHARE = 0.5
GPU_TOKENS = 1 << 21  # enough for any GPU to have something to do everywhere; more would only wait together
MOST = 4096
_ROWS = 4  # two alleles on two strands
_FLOAT = 4


class Halved(NamedTuple):
    """Variants, or bases, per forward pass that did not fit the memory, and what is left of them."""

    planned: int
    left: int


class OutOfMemoryError(UserError):
    """A batch that the device's memory does not hold."""


def planned(config: ModelConfig, window: int, device: torch.device) -> int:
    """Variants per forward pass. The same on the same machine, whatever else runs there.

    Args:
        config: of the model.
        window: bases of each sequence.
        device: where it runs.
    """
    return max(1, min(MOST, tokens_at_once(config, device) // (_ROWS * window)))


def tokens_at_once(config: ModelConfig, device: torch.device) -> int:
    """Tokens of all rows of a forward pass."""
    # What lives at once in a block, per token: both halves of the projection, the convolved, dt, y; the stream,
    # its norm, what is added; logits and their log-softmax.
    token = _FLOAT * (6 * config.d_inner + 4 * config.d_model + 2 * config.padded_vocab_size)
    tokens = CPU_BYTES // token
    if device.type == "cuda":
        memory = int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
        tokens = min(GPU_TOKENS, memory // token)
    return tokens


def does_not_fit(variants: int, window: int, *, automatic: bool) -> OutOfMemoryError:
    """What the user is told."""
    remedy = "give a smaller --window" if automatic else "give a smaller --batch-size, or auto"
    return OutOfMemoryError(
        f"{variants} variants in windows of {window} bases do not fit the memory", remedy, field="batch_size"
    )
