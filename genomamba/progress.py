"""Progress with an ETA, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Bars on stderr: what, how far, how long still, and a note; without a terminal, their last state.

    Give ``note=`` to ``add_task``. On an error the bars vanish: its message stands alone.
    """
    columns = (  # together they fit 80 characters
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
    progress.start()
    try:
        yield progress
    except BaseException:
        progress.live.transient = True
        progress.live.stop()  # and not progress.stop(), which ends a line that was not begun
        raise
    progress.stop()
