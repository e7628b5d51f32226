"""steps.tsv: each step's loss to the last bit and the windows it saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from genomamba.tasks.pretrain import PretrainTask

NAME = "steps.tsv"


class StepLog(Callback):
    """One line per step: its number from 0, the loss in hexadecimal, the windows.

    Args:
        folder: of the run.
        before: keep the lines of earlier runs below this step.
        rank: of the process; those after the first write the windows that they saw to steps.rank1.tsv and so on.
    """

    def __init__(self, folder: Path, *, before: int = 0, rank: int = 0) -> None:
        self._path = folder / (NAME if rank == 0 else f"steps.rank{rank}.tsv")
        kept = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:before] if before else []
        self._path.write_text("".join(kept), encoding="utf-8")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PretrainTask)
        if (batch_idx + 1) % pl_module.accumulate:
            return
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{trainer.global_step - 1}\t{pl_module.step_loss.hex()}\t{' '.join(pl_module.where)}\n")
