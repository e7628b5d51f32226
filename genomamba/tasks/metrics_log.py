"""metrics.csv: what a run logs, one row per logged step, continued by a resumed run."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from genomamba.files import whole_file

LOG_EVERY = 5  # steps between rows
_SECONDS_BETWEEN_WRITES = 10.0
_MOST = 0.005  # of the time, for writing


class MetricsLog(Logger):
    """Writes folder/metrics.csv; a cell is empty where a step did not log that figure.

    Args:
        folder: of the run.
        before: keep the rows of earlier runs below this step; a row's step counts from 0.
    """

    def __init__(self, folder: Path, *, before: int = 0) -> None:
        super().__init__()
        self._path = folder / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._written, self._write_at = 0, time.monotonic() + _SECONDS_BETWEEN_WRITES
        if before and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if row["step"] and int(row["step"]) < before]
            self._rows = [{name: value for name, value in row.items() if value} for row in rows]

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration is in run.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._rows.append({name: float(value) for name, value in metrics.items() if name != "epoch"} | {"step": step})

    def save(self) -> None:
        """Writes now and then; Lightning calls it after every row."""
        if time.monotonic() > self._write_at:
            self.write()

    def write(self) -> None:
        """Writes all rows anew: they are few, and a reader never sees half of one."""
        if len(self._rows) == self._written:
            return
        began = time.monotonic()
        columns = sorted({name for row in self._rows for name in row})
        with whole_file(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(self._rows)
        now = time.monotonic()
        self._written, self._write_at = len(self._rows), now + max(_SECONDS_BETWEEN_WRITES, (now - began) / _MOST)

    def finalize(self, status: str) -> None:
        self.write()
