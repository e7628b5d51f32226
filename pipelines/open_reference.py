"""Opening a reference with a progress bar, for when it must be indexed first."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from genomamba.data.index import build_index
from genomamba.data.reference import Reference
from genomamba.progress import progress_bar


def open_reference(path: str, *, rna: bool = False) -> Reference:
    """The indexed reference; raises as ``Reference.open`` does."""
    with ExitStack() as stack:
        return Reference.open(path, rna=rna, progress=_Reading(stack))


def rebuild_index(path: str, *, rna: bool = False) -> Path:
    """Builds the index even where a good one exists; returns its path."""
    with ExitStack() as stack:
        return build_index(path, force=True, rna=rna, progress=_Reading(stack))


class _Reading:
    """A bar that appears once there is something to read through."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._begun = stack, False

    def __call__(self, done: int, total: int) -> None:
        if not self._begun:
            self._begun = True
            self._bar = self._stack.enter_context(progress_bar())
            self._task = self._bar.add_task("indexing", total=total, note="bytes")
        self._bar.update(self._task, completed=done)
