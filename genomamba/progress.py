"""Progress with an ETA, on stderr."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal
_LOG_WIDTH = 1000  # there; rich would take 80, and cut what is longer


class TimeColumn(ProgressColumn):
    """How long still, and in the end how long it took."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        word, seconds = ("took", task.finished_time) if task.finished else ("ETA", task.time_remaining)
        return Text(f"{word} {'-:--:--' if seconds is None else timedelta(seconds=int(seconds))}", no_wrap=True)


class _Console(Console):
    """Of which a reader that has gone is told as of any other file; rich itself would end the process with 1."""

    def on_broken_pipe(self) -> None:
        if threading.current_thread().daemon:  # one that draws: it ends, and whoever gives progress is told next
            raise SystemExit
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Bars on stderr: what, how far, how long still, and a note; without a terminal, a line now and then.

    Give ``note=`` to ``add_task``. On an error the bars vanish: its message stands alone.
    """
    columns = (  # together they mostly fit 80 characters
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = _Console(stderr=True)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    progress = Progress(*columns, console=console, refresh_per_second=4)
    done = threading.Event()
    progress.start()
    if not progress.console.is_terminal:
        threading.Thread(target=_print_now_and_then, args=(progress, done), daemon=True).start()
    try:
        yield progress
    except BaseException:
        progress.live.transient = True
        progress.live.stop()  # and not progress.stop(), which ends a line that was not begun
        raise
    finally:
        done.set()
    progress.stop()


def _print_now_and_then(progress: Progress, done: threading.Event) -> None:
    while not done.wait(_SECONDS_BETWEEN_LINES):
        progress.console.print(progress.get_renderable())
