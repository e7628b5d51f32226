"""The state of every random generator that a training step may draw from, as tensors and plain values."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def take_rng_state() -> dict[str, Any]:
    """States of torch (CPU and each GPU), numpy's global generator, and Python's."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).copy()), int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Puts every generator back to where ``take_rng_state`` found it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, cached))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
