"""A forked worker leaves inherited garbage alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

import pytest

from genomamba.data.workers import begin_worker


class Bomb:
    """As a CUDA tensor: to free it in another process than its own ends that process."""

    def __init__(self) -> None:
        self.home, self.itself = os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)


def work(end: Connection, prepared: bool) -> None:
    if prepared:
        begin_worker(0)
    gc.collect()
    end.send(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("prepared", [True, False])
def test_inherited_garbage_is_not_collected(prepared: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        Bomb()  # garbage at once, in a cycle
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        process = context.Process(target=work, args=(theirs, prepared))
        process.start()
        process.join(60)
    finally:
        gc.enable()
        gc.collect()
    assert process.exitcode == (0 if prepared else -signal.SIGKILL)
    assert not prepared or ours.recv()
