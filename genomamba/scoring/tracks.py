"""Tracks that a model predicts: its outputs for every base, along the genome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import torch

from genomamba.data.tracks import TrackPiece
from genomamba.genome.interval import Interval
from genomamba.model.sequence_heads import TokenModel
from genomamba.scoring.embeddings import Embedder


def predict_tracks(model: TokenModel, embedder: Embedder, region: Interval) -> Iterator[np.ndarray]:
    """Outputs (l, tracks), fp32, of neighbouring bases in the direction in which the region's strand is read."""
    with torch.inference_mode():
        for hidden in embedder.bases(region):
            yield model.of_hidden(torch.from_numpy(hidden).to(embedder.device)).float().cpu().numpy()


class TrackSpool:
    """Tracks as they come, all of them at once, to be read back one by one.

    A file of one track wants its values in one go, and the model gives all tracks of a base together.

    Args:
        file: an empty temporary file, whose user closes it.
        tracks: how many there are.
    """

    def __init__(self, file: IO[bytes], tracks: int) -> None:
        self._file, self.tracks = file, tracks
        self._regions: list[Interval] = []

    def write(self, region: Interval, pieces: Iterator[np.ndarray]) -> None:
        """Adds a region from its pieces (l, tracks), which may come from either end, as its strand says."""
        row = 4 * self.tracks
        begin = row * sum(each.length for each in self._regions)
        done = 0
        for piece in pieces:
            if region.strand == "-":
                piece = piece[::-1]
                at = region.length - done - len(piece)
            else:
                at = done
            self._file.seek(begin + row * at)
            self._file.write(np.ascontiguousarray(piece, dtype=np.float32).tobytes())
            done += len(piece)
        self._regions.append(region)

    def read(self, track: int, at_once: int = 1 << 16) -> Iterator[TrackPiece]:
        """Pieces of one track, region by region, each from its lowest coordinate on."""
        self._file.seek(0)
        for region in self._regions:
            for start in range(region.start, region.end, at_once):
                bases = min(at_once, region.end - start)
                values = np.frombuffer(self._file.read(4 * self.tracks * bases), dtype=np.float32)
                yield TrackPiece(region.contig, start, values.reshape(bases, self.tracks)[:, track])
