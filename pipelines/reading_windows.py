"""How many bases a model reads at once where results must not depend on it more than they have to."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from genomamba.errors import ConfigError
from genomamba.pipelines.model_provenance import model_window

SEGMENT = 8192  # bases per forward pass of a causal model, whose results do not depend on it


class WindowOptions(Protocol):
    """The options that say so."""

    @property
    def model(self) -> str: ...
    @property
    def window(self) -> int | None: ...
    @property
    def overlap(self) -> int | None: ...


class ReadingWindows(NamedTuple):
    """Bases."""

    window: int
    overlap: int  # of neighbouring windows; 0 for a causal model, which carries its state


def usual_windows(trained: int, *, is_causal: bool) -> ReadingWindows:
    """What a model reads at once where nothing else is asked for, that was trained on windows of ``trained`` bases."""
    return ReadingWindows(SEGMENT, 0) if is_causal else ReadingWindows(trained, trained // 4)


def reading_windows(options: WindowOptions, *, is_causal: bool) -> ReadingWindows:
    """What was asked for; else what suits a causal model, or what another was trained with.

    Raises:
        CheckpointError: the model's folder does not name its window.
        ConfigError: windows that overlap as a whole.
    """
    if is_causal:
        return ReadingWindows(options.window or SEGMENT, 0)
    window = options.window or model_window(options.model)
    overlap = usual_windows(window, is_causal=False).overlap if options.overlap is None else options.overlap
    if overlap >= window:
        raise ConfigError(
            f"it must be less than the window, {window}", "lower it", field="overlap", value=options.overlap
        )
    return ReadingWindows(window, overlap)
