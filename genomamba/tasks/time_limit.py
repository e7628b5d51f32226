"""Training that ends at a time."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, Trainer


class TimeLimit(Callback):
    """Ends training, with a last validation, once so many seconds have gone by since it began."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.reached = False

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if time.monotonic() - self._began > self.seconds:
            self.reached = trainer.should_stop = True
