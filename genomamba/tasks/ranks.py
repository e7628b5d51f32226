"""Training in several processes, one per device: the first starts the others and answers for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import distributed

from genomamba.errors import GenoMambaError

_VARIABLES = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_GRACE = 20.0  # seconds in which the others end by themselves


def own_rank() -> int:
    """0 in the process that the user started."""
    return int(os.environ.get("LOCAL_RANK", 0))


class Ranks:
    """A context in which ranks 1, 2, … run ``follow(*args)`` beside this process, which is rank 0.

    When this process fails they are ended; when one of them fails, so does this process, which might wait for it
    otherwise.

    Args:
        count: ranks in all; with 1 nothing happens.
        follow: what the others run; importable by name.
        args: for it, picklable.
    """

    def __init__(self, count: int, follow: Callable[..., None], *args: Any) -> None:
        self.count, self.follow, self.args = count, follow, args
        self._others: list[BaseProcess] = []
        self._over = False

    def __enter__(self) -> Ranks:
        if self.count == 1:
            return self
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        _join(0, port)
        context = multiprocessing.get_context("spawn")
        for rank in range(1, self.count):
            process = context.Process(target=_start, args=(rank, port, self.follow, self.args))
            process.start()
            self._others.append(process)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.count == 1:
            return
        self._over = True
        deadline = time.monotonic() + (_GRACE if kind is None or issubclass(kind, GenoMambaError) else 0)
        for process in self._others:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name in _VARIABLES:
            os.environ.pop(name, None)

    def _watch(self) -> None:
        left = list(self._others)
        while left and not self._over:
            wait([process.sentinel for process in left], timeout=1.0)
            left = [process for process in left if process.exitcode is None]
            failed = [process.exitcode for process in self._others if process.exitcode not in (None, 0)]
            if failed and not self._over:
                time.sleep(_GRACE / 4)  # most failures are everyone's, and told better by this process
                if self._over:
                    return
                print(f"a training process ended with exit code {failed[0]}", file=sys.stderr)
                for process in self._others:
                    process.kill()
                os._exit(1)


def _join(rank: int, port: int) -> None:
    """What Lightning finds its place by; with these set it starts no processes of its own."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _start(rank: int, port: int, follow: Callable[..., None], args: tuple[Any, ...]) -> None:
    follow_parent()
    torch.set_num_threads(1)
    _join(rank, port)
    try:
        follow(*args)
    except GenoMambaError:
        pass  # the first rank has the same one, and says so
    except Exception:
        traceback.print_exc()
        os._exit(1)
    # Whatever still waits for a signal that is ignored must not keep this process.
    os._exit(0)


def leave_to_others() -> None:
    """Signals, in a process that another one started and answers for; both get those that go to their group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def follow_parent() -> None:
    """In a process that another one started: signals are that one's to answer, and this one ends when it does."""
    leave_to_others()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
