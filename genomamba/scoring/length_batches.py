"""Batches of sequences of any length: as many as memory is likely to hold, and fewer when it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from genomamba.model.config import ModelConfig
from genomamba.scoring.batch_size import MOST, Halved, OutOfMemoryError, tokens_at_once

Found = TypeVar("Found")
_ROWS = 2  # both strands


class LengthBatches:
    """Cuts sequences into batches of neighbours, and calls a function with each.

    A planned batch holds as many bases, padding with them, as are likely to fit, whatever the sequences' lengths; so
    like lengths should come together.

    Args:
        config: of the model.
        size: sequences per batch; None plans it, and halves what does not fit.
        device: where the model runs.
        otherwise: what the user can do where a single sequence does not fit.
    """

    def __init__(self, config: ModelConfig, size: int | None, device: torch.device, *, otherwise: str) -> None:
        self._size, self._otherwise = size, otherwise
        self._planned = self._bases = max(1, tokens_at_once(config, device) // _ROWS)

    @property
    def halved(self) -> Halved | None:
        """What became of planned batches until now, in bases; None where they fit."""
        return None if self._bases == self._planned else Halved(self._planned, self._bases)

    def __call__(self, lengths: Sequence[int], forward: Callable[[slice], Found]) -> Iterator[tuple[slice, Found]]:
        """The places of each batch among the sequences, and what ``forward`` makes of them, in order.

        Raises:
            OutOfMemoryError: a batch does not fit, or a single sequence where the size is planned.
        """
        start = 0
        while start < len(lengths):
            part = slice(start, self._end(lengths, start))
            count, longest = part.stop - start, max(lengths[part])
            try:
                found = forward(part)
            except torch.OutOfMemoryError as error:
                if self._size is not None or count == 1:
                    remedy = self._otherwise if self._size is None else "give a smaller --batch-size, or auto"
                    raise OutOfMemoryError(
                        f"{count} sequences of up to {longest:,} bases do not fit the memory",
                        remedy,
                        field="batch_size",
                    ) from error
            else:
                yield part, found
                start = part.stop
                continue
            torch.cuda.empty_cache()
            self._bases = (count + 1) // 2 * longest

    def _end(self, lengths: Sequence[int], start: int) -> int:
        if self._size is not None:
            return min(start + self._size, len(lengths))
        longest, end = lengths[start], start + 1
        while end < min(start + MOST, len(lengths)):
            longest = max(longest, lengths[end])
            if (end + 1 - start) * longest > self._bases:
                break
            end += 1
        return end
