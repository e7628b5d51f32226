"""What a process needs that works out shards of an output, whichever command's: a recipe, and what it makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from genomamba.errors import GenoMambaError

if TYPE_CHECKING:
    import torch

    from genomamba.scoring.batch_size import Halved


class ShardWorker(Protocol):
    """Turns what is in a shard into a result that `Shards` can keep."""

    def __call__(self, shard: Any, /) -> Any: ...

    @property
    def halved(self) -> Halved | None:
        """What became of its batches until now; None where they fit."""


class Recipe(Protocol):
    """What another process loads, which it gets as a pickle: options, and paths that its machine knows."""

    def make(self, device: torch.device) -> ShardWorker:
        """Loads the model once, onto that device."""


class RemoteError(GenoMambaError):
    """What such a process reported, or what became of it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
