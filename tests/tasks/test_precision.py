"""bf16 with a fused optimizer and clipped gradients, as on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader

from genomamba.tasks.trainer import make_trainer


class Probe(LightningModule):
    """One weight pulled far harder than the clip allows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1, bias=False)
        self.norms: list[float] = []
        self.dtypes: list[torch.dtype] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        y = self.line(batch)
        self.dtypes.append(y.dtype)
        return 1000 * y.float().sum()

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        if self.line.weight.grad is not None:
            self.norms.append(self.line.weight.grad.norm().item())

    def configure_optimizers(self) -> Optimizer:
        return AdamW(self.parameters(), fused=True)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_a_fused_optimizer_gets_clipped_gradients(tmp_path: Path) -> None:
    probe = Probe()
    trainer = make_trainer(
        tmp_path, steps=2, clip=0.5, device="cpu", precision="bf16-mixed", callbacks=[], validate=False
    )
    trainer.fit(probe, DataLoader(torch.ones(2, 1)))
    assert probe.dtypes == [torch.bfloat16] * 2
    assert probe.norms
    assert all(norm == pytest.approx(0.5, rel=1e-3) for norm in probe.norms)
