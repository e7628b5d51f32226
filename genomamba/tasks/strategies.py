"""How several devices share a run: copies of the model (DDP), or its parts (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from genomamba.tasks.config import DeviceSharing

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all devices; a checkpoint holds the whole model, as that of one device does."""

    def __init__(self, devices: int, backend: str) -> None:
        super().__init__(
            data_parallel_size=devices,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        return get_model_state_dict(self.model, options=_WHOLE)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        assert self.model is not None
        return get_optimizer_state_dict(self.model, getattr(optimizer, "optimizer", optimizer), options=_WHOLE)

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        set_model_state_dict(
            self.model, checkpoint["state_dict"], options=StateDictOptions(full_state_dict=True, strict=strict)
        )

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        assert self.model is not None
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self.model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def make_strategy(sharing: DeviceSharing, devices: int, device: torch.device) -> Strategy | str:
    """The strategy for a trainer; ``auto`` is DDP where there is more than one device."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if devices == 1:
        return "auto"
    if sharing == "fsdp":
        return ShardedStrategy(devices, backend)
    return DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True, find_unused_parameters=False)
