"""The same work on several devices of this machine: a process for each works out shards, and this one keeps them.

A process is given a shard when it has done the one before, so that a slower device does fewer. Whatever order shards
come back in, the output is then put together as if they had been worked out here.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from genomamba.errors import GenoMambaError
from genomamba.pipelines.shard_worker import Recipe, RemoteError
from genomamba.scoring.batch_size import Halved
from genomamba.tasks.ranks import follow_parent


class Failure(NamedTuple):
    """A process's last words."""

    message: str
    exit_code: int


def work_on_devices(
    recipe: Recipe,
    shards: Iterable[tuple[int, Any]],
    save: Callable[[int, Any, Halved | None], None],
    devices: Sequence[str],
) -> None:
    """Works out shards and hands number, result and `Halved` of each to ``save``, in any order.

    Args:
        recipe: what each process loads, on a device of its own.
        shards: number and content, which a pickle can hold, of each that is not done.
        save: called in this process.
        devices: as torch calls them; a CPU may stand there several times.

    Raises:
        RemoteError: what a process raised, or that it ended; the others are ended too.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // len(devices))
    waiting = iter(shards)
    processes: list[BaseProcess] = []
    at_work: dict[Connection, int] = {}
    try:
        for number, device in enumerate(devices):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, recipe, device, threads))
            _start(process)
            processes.append(process)  # not before: one that never started cannot be killed
            theirs.close()  # so that its end is heard
            at_work[ours] = number
        while at_work:
            for connection in wait(list(at_work)):
                assert isinstance(connection, Connection)
                number = at_work[connection]
                try:
                    answer = connection.recv()
                    if isinstance(answer, Failure):
                        raise RemoteError(*answer)
                    if answer is not None:
                        save(*answer)
                    shard = next(waiting, None)
                    connection.send(shard)
                except (EOFError, OSError) as error:
                    processes[number].join()
                    raise RemoteError(
                        f"the process at work on {devices[number]} ended with exit code "
                        f"{processes[number].exitcode}; --resume goes on with what is done",
                        1,
                    ) from error
                if shard is None:
                    del at_work[connection]
    finally:
        for started in processes:
            started.kill()  # those whose work is done have nothing left to do
            started.join()


def _start(process: BaseProcess) -> None:
    """Starts it with Ctrl-C ignored: it goes to every process of a terminal, and is this one's to answer."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        process.start()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, recipe: Recipe, name: str, threads: int) -> None:
    follow_parent()
    torch.set_num_threads(threads)
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # kernels are launched on the current one
    try:
        work = recipe.make(device)
        connection.send(None)  # ready for the first
        while (shard := connection.recv()) is not None:
            number, content = shard
            connection.send((number, work(content), work.halved))
    except GenoMambaError as error:
        connection.send(Failure(str(error), error.exit_code))
