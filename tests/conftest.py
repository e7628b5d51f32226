"""Shared by all tests: memory that was never written reads as NaN, and results do not depend on luck."""

from __future__ import annotations

import os
import shutil
import signal

import hypothesis
import pytest

# Before anything imports torch or triton, and for every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its core to the other workers
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch

# The same examples in every run: a green run stays green until the code changes.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU here: run `make test-gpu` on a machine with one")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
