"""Training that ends at a time."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, Trainer


class TimeLimit(Callback):
    """Ends training, with a last validation, once so many seconds have gone by since it began."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None

    def gone(self) -> float:
        """The share of the time that has gone by; 0 before training begins."""
        return 0.0 if self._began is None else (time.monotonic() - self._began) / max(self.seconds, 1e-9)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.gone() > 1:
            trainer.should_stop = True
