"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console
from rich.table import Table

WIDTH = 136  # of the widest row; a narrower terminal wraps it


class _Stdout(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # rich would exit with 1; the command line ends every command alike


def print_tables(parts: Iterable[Table | str]) -> None:
    """Prints them, one below the other.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    console = _Stdout(width=WIDTH, soft_wrap=False)
    for part in parts:
        console.print(part)
