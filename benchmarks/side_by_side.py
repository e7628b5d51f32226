"""Runs of a benchmark side by side, each in a process, on one device or several.

A small model's training step is bound by what asks the device for it, so that one device serves many. What does not
end in the time that all of them are given is stopped, and named.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import torch

ALONE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Job(NamedTuple):
    """``work(*args)`` in another process; all of it picklable."""

    name: str
    cost: float  # in any unit: the longest begins first
    work: Callable[..., Any]
    args: tuple[Any, ...]


class _Worker:
    """A process that does one job after the other, with one thread and one device."""

    def __init__(self, device: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.device, self.died = device, False
        self.job: Job | None = None
        self.connection, theirs = context.Pipe()
        own = dict.fromkeys(ALONE, "1") | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        before = {name: os.environ.get(name) for name in own}
        os.environ |= own  # read where numpy and torch are loaded, which is before anything of ours runs
        try:
            self.process = context.Process(target=_work, args=(theirs,))  # no daemon: a job may have workers
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def begin(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def answer(self) -> tuple[str | None, Any]:
        """(why the job failed, or None; what it returned)."""
        try:
            answer, self.job = self.connection.recv(), None
            return answer
        except (EOFError, ConnectionError):
            self.died = True
            return "its process died", None

    def end(self) -> None:
        """At once where a job runs; an idle process goes by itself."""
        self.connection.close()
        if self.job is not None:
            self.process.kill()
        self.process.join()


def side_by_side(
    jobs: Iterable[Job],
    count: int,
    done: Callable[[Job, Any], Iterable[Job]],
    *,
    lost: Callable[[Job, str], Iterable[Job]] = lambda job, why: (),
    minutes: float | None = None,
) -> dict[str, str]:
    """Does the jobs, the longest first, and those that ``done`` answers a finished one with, or ``lost`` a failed one.

    Args:
        jobs: to be done.
        count: processes; where there are several devices, they take turns.
        done: is told, in this process, of each finished job and what it returned.
        lost: is told of each job that failed, but for those that the clock stopped, and why.
        minutes: after which all that is not finished is given up.

    Returns:
        name → why, of the jobs that were not done.
    """
    began = time.monotonic()
    waiting: list[tuple[float, int, Job]] = []
    failed: dict[str, str] = {}
    added = 0

    def add(more: Iterable[Job]) -> None:
        nonlocal added
        for job in more:
            heapq.heappush(waiting, (-job.cost, added, job))
            added += 1

    add(jobs)
    devices = _devices()
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(devices[number % len(devices)]) for number in range(min(count, len(waiting))))
        while True:
            for worker in workers:
                if worker.job is None and waiting:
                    worker.begin(heapq.heappop(waiting)[2])
            busy = {id(w.connection): (w, w.job) for w in workers if w.job is not None}
            if not busy:
                return failed
            left = None if minutes is None else 60 * minutes - (time.monotonic() - began)
            for connection in wait([w.connection for w, _ in busy.values()], left and max(0.0, left)):
                worker, job = busy[id(connection)]
                problem, result = worker.answer()
                if problem is None:
                    add(done(job, result))
                else:
                    failed[job.name] = problem
                    add(lost(job, problem))
                seconds = time.monotonic() - began
                print(f"{seconds:6.0f} s  {job.name}: {problem or 'done'}", file=sys.stderr, flush=True)
                if worker.died:
                    worker.end()
                    workers[workers.index(worker)] = _Worker(worker.device)
            if left is not None and left <= 0:
                failed |= {worker.job.name: "stopped by the clock" for worker in workers if worker.job is not None}
                return failed | {job.name: "not begun in time" for *_, job in waiting}
    finally:
        for worker in workers:
            worker.end()


def _devices() -> list[str | None]:
    """As CUDA_VISIBLE_DEVICES names them; one that is None where there is no GPU."""
    if not torch.cuda.is_available():
        return [None]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(given.split(",")) if given else [str(number) for number in range(torch.cuda.device_count())]


def _work(connection: Connection) -> None:
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (one line of each job is enough)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, job.work(*job.args)))
        except Exception as error:  # of one job, which ends no other
            connection.send((traceback.format_exception_only(error)[-1].strip(), None))
