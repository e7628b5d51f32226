"""metrics.csv is written now and then, and whole at the end."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from genomamba.tasks import metrics_log
from genomamba.tasks.metrics_log import MetricsLog


def steps(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return [row["step"] for row in csv.DictReader(stream)]


def test_a_row_is_no_reason_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path)
    for step in range(3):
        log.log_metrics({"train_loss": 1.0}, step)
        log.save()  # as Lightning does
    assert not (tmp_path / "metrics.csv").exists()
    later = time.monotonic() + metrics_log._SECONDS_BETWEEN_WRITES + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    log.save()
    assert steps(tmp_path) == ["0", "1", "2"]


def test_the_last_rows_are_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.log_metrics({"train_loss": 1.0}, 0)
    log.write()
    log.log_metrics({"train_loss": 0.5}, 1)
    log.finalize("success")
    assert steps(tmp_path) == ["0", "1"]
    assert steps(tmp_path) == [row["step"] for row in MetricsLog(tmp_path, before=2)._rows]
