"""Benchmarks' runs side by side: order, what follows from them, failures, the clock."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHILDREN = """
import multiprocessing
with multiprocessing.get_context("spawn").Pool(1) as pool:
    assert pool.map(abs, [-1]) == [1]
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import side_by_side

    return side_by_side


def test_longest_first_and_an_error_or_a_death_ends_no_other(module: Any) -> None:
    def job(name: str, cost: float, work: Callable[..., Any], *args: Any) -> Any:
        return module.Job(name, cost, work, args)

    finished: list[tuple[str, Any]] = []

    def done(made: Any, result: Any) -> list[Any]:
        finished.append((made.name, result))
        return [job("after", 9, os.getenv, "OMP_NUM_THREADS")] if made.name == "half" else []

    jobs = [
        job("short", 1, operator.truediv, 1, 4),
        job("error", 3, operator.truediv, 1, 0),
        job("dies", 2, os._exit, 1),
        job("half", 4, operator.truediv, 1, 2),
        job("children", 5, exec, CHILDREN),
    ]
    lost: list[tuple[str, str]] = []

    def lose(made: Any, why: str) -> list[Any]:
        lost.append((made.name, why))
        return [job("instead", 9, operator.truediv, 3, 4)] if made.name == "error" else []

    failed = module.side_by_side(jobs, 1, done, lost=lose)
    assert finished == [("children", None), ("half", 0.5), ("after", "1"), ("instead", 0.75), ("short", 0.25)]
    assert dict(lost) == failed
    assert failed == {"error": "ZeroDivisionError: division by zero", "dies": "its process died"}


def test_the_clock_ends_what_runs_and_names_what_does_not(module: Any) -> None:
    jobs = [module.Job(name, cost, time.sleep, (600,)) for name, cost in (("first", 2), ("second", 1))]
    began = time.monotonic()
    failed = module.side_by_side(jobs, 1, lambda job, result: [], minutes=0.01)
    assert failed == {"first": "stopped by the clock", "second": "not begun in time"}
    assert time.monotonic() - began < 60
