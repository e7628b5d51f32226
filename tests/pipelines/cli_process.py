"""Command lines in processes of their own, which tests may kill. One server imports everything once and forks them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_PRELOAD = [
    "lightning",
    "numba",
    "genomamba.pipelines.pretrain",
    "genomamba.pipelines.score",
    "genomamba.pipelines.embed_shards",
    "genomamba.pipelines.likelihood_shards",
    "genomamba.pipelines.predict_table",
    "genomamba.pipelines.predict_tracks",
    "genomamba.scoring.records",
    "genomamba.data.datamodule",
    "genomamba.tasks.pretrain",
]


def start(words: Sequence[object], log: Path, *, file_size_limit: int | None = None) -> BaseProcess:
    """Runs ``genomamba`` with ``words`` in its own process group; stderr goes to ``log``.

    The exit code is that of the command line, or minus the number of the signal that killed it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_main, args=([str(word) for word in words], str(log), file_size_limit))
    process.start()
    return process


def _main(words: list[str], log: str, file_size_limit: int | None) -> None:
    import resource

    import torch

    from genomamba.pipelines.cli import main

    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, as in an ordinary process
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    if file_size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    code = main(words)
    sys.stderr.flush()
    sys.exit(code)


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Pids and command lines of all descendants of a process of ours."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    for child in parents:
        above = child
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and child != pid:
            yield child, names[child]
