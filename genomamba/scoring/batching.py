"""Batches of variants: those of like length side by side, neighbours that share a window together; and as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from genomamba.data.pairs import VariantWindow
from genomamba.genome import alphabet

_BUCKETS_PER_DOUBLING = 4  # within a bucket lengths differ by 19 % at most


def batches(windows: Sequence[VariantWindow], size: int) -> Iterator[list[int]]:
    """Places in ``windows``, at most ``size`` a batch; each place once.

    Rows of a batch are padded to its longest and read together from its earliest change on, so both lengths are
    alike within it. Variants of one window follow one another. A function of the arguments alone.
    """
    ordered = sorted(range(len(windows)), key=lambda place: (*_bucket(windows[place]), *_where(windows[place]), place))
    batch: list[int] = []
    for place in ordered:
        if batch and (len(batch) == size or _bucket(windows[place]) != _bucket(windows[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _bucket(window: VariantWindow) -> tuple[int, int]:
    """Of the longest row, and of what both alleles share on the strand where that is least."""
    shared = min(window.start, window.context.size - window.end)
    longest = window.context.size + max(0, window.alt.size - (window.end - window.start))
    return round(_BUCKETS_PER_DOUBLING * math.log2(longest)), round(_BUCKETS_PER_DOUBLING * math.log2(shared + 1))


def _where(window: VariantWindow) -> tuple[str, int, int, int]:
    return window.span.contig, window.span.start, window.span.end, window.start


def right_padded(rows: Sequence[np.ndarray], value: int = alphabet.PAD) -> Tensor:
    """Rows of different lengths as one tensor, (rows, longest), of their type."""
    padded = np.full((len(rows), max(row.size for row in rows)), value, dtype=rows[0].dtype)
    for to, row in zip(padded, rows, strict=True):
        to[: row.size] = row
    return torch.from_numpy(padded)


def to_device(tensors: Iterable[Tensor], device: torch.device) -> list[Tensor]:
    """Copies that the device makes when it comes to them: nobody waits for what it does before."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
