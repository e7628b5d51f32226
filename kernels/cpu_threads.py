"""Threads for the compiled CPU kernels, which run without the GIL.

A plain pool rather than numba's ``prange``: its workqueue aborts the process when two threads use it
at once, and its OpenMP layer does not survive a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def share(work: Callable[[int, int], None], tasks: int) -> None:
    """Call ``work(first, end)`` over ranges that make up ``range(tasks)``, on as many threads as torch uses.

    The result must not depend on the ranges: each task writes what no other task reads or writes.
    Whoever is free takes the next range, the calling thread too, so that a thread kept waiting by other
    programs delays nobody. The first exception is raised once all threads are done.
    """
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1:
        work(0, tasks)
        return
    size = max(1, tasks // (4 * threads))
    starts = iter(range(0, tasks, size))
    taking = threading.Lock()

    def take() -> None:
        while True:
            with taking:
                first = next(starts, None)
            if first is None:
                return
            work(first, min(first + size, tasks))

    pool = _get_pool()
    others = [pool.submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        # One that has not begun finds nothing left to do.
        failures = [other.exception() for other in others if not other.cancel()]
    for failure in failures:
        if failure is not None:
            raise failure


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="genomamba-cpu")
        return _pool


def _forget_pool() -> None:
    """In the child of a fork the pool's threads do not exist, and the lock may have been held."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
