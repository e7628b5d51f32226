"""Where to run. Knows no Lightning, whose import takes longer than the rest of a short command."""

from __future__ import annotations

import torch

from genomamba.errors import ConfigError
from genomamba.tasks.config import Device, DeviceSharing


def resolve_device(device: Device) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ConfigError: ``gpu`` without a GPU that torch can use.
    """
    available = torch.cuda.is_available()
    if device == "gpu" and not available:
        raise ConfigError(
            "torch finds no GPU", "use --device cpu, or install a CUDA build of torch", field="device", value="gpu"
        )
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def check_devices(sharing: DeviceSharing, devices: int, device: torch.device) -> None:
    """Raises ConfigError for more GPUs than there are, or for sharing with nobody."""
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise ConfigError(
            f"there are {torch.cuda.device_count()} GPUs", "ask for no more", field="devices", value=devices
        )
    if devices == 1 and sharing != "auto":
        raise ConfigError("one device shares with no other", "give --devices", field="strategy", value=sharing)
