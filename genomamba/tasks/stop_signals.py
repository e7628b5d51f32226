"""SIGTERM and Ctrl-C as a request that training honours between steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from genomamba.errors import GenoMambaError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedTraining(GenoMambaError):
    """A signal stopped the run after a checkpoint was written; the exit code is 128 + its number."""

    def __init__(self, number: signal.Signals, step: int, folder: object) -> None:
        super().__init__(
            f"{folder}: stopped by {number.name} after step {step}; the same command with --resume goes on"
        )
        self.exit_code = 128 + number


class AbandonedTraining(InterruptedTraining):
    """A second Ctrl-C: the run ends without another checkpoint."""

    exit_code = 128 + signal.SIGINT

    def __init__(self) -> None:
        GenoMambaError.__init__(
            self, "interrupted twice; --resume goes on from the last whole checkpoint, where there is one"
        )


class StopSignals:
    """A context in which the first SIGTERM or SIGINT sets ``received``; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Makes this the only handler; Lightning puts its own before it when a fit begins."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise AbandonedTraining
        self.received = self.received or signal.Signals(number)
