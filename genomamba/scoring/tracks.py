"""Tracks along the genome that a model predicts, its outputs for every base, and where numbers per base are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import torch

from genomamba.data.datasets import WindowReader
from genomamba.data.references import Genome
from genomamba.genome.interval import Interval
from genomamba.model.sequence_heads import TokenModel
from genomamba.scoring.embeddings import Embedder


def track_embedder(model: TokenModel, genome: Genome, *, window: int, overlap: int, device: torch.device) -> Embedder:
    """What gives the hidden states that tracks are predicted from; the model is moved to ``device``."""
    return Embedder(
        *(model.to(device).eval().backbone, WindowReader(genome, softmask_weight=1.0)),
        window=window,
        overlap=overlap,
        batch_size=1,
        both_strands=False,
        device=device,
    )


def predict_tracks(model: TokenModel, embedder: Embedder, region: Interval) -> Iterator[np.ndarray]:
    """Outputs (l, tracks), fp32, of neighbouring bases in the direction in which the region's strand is read."""
    with torch.inference_mode():
        for hidden in embedder.bases(region):
            yield model.of_hidden(torch.from_numpy(hidden).to(embedder.device)).float().cpu().numpy()


class TrackSpool:
    """Numbers of each base of regions, one region after the other, in a file; to be read back track by track.

    A file of one track wants its values in one go, and the model gives all tracks of a base together.

    Args:
        file: an empty one to be written, or what another one has written; its user closes it.
        tracks: numbers per base.
        regions: those that are in it.
    """

    def __init__(self, file: IO[bytes], tracks: int, regions: Sequence[Interval] = ()) -> None:
        self._file, self.tracks = file, tracks
        self._regions = list(regions)

    def write(self, region: Interval, pieces: Iterable[np.ndarray], *, backwards: bool = False) -> None:
        """Adds a region from its pieces (l, tracks), which come from its last base on where they come ``backwards``."""
        row = 4 * self.tracks
        begin = row * sum(each.length for each in self._regions)
        done = 0
        for piece in pieces:
            if backwards:
                piece = piece[::-1]
                at = region.length - done - len(piece)
            else:
                at = done
            self._file.seek(begin + row * at)
            self._file.write(np.ascontiguousarray(piece, dtype=np.float32).tobytes())
            done += len(piece)
        self._regions.append(region)

    def rows(self) -> Iterator[tuple[Interval, int, np.ndarray]]:
        """Region, the first base's place in it, and numbers (bases, tracks), region by region, in the file's order."""
        self._file.seek(0)
        at_once = max(1, min(1 << 16, (1 << 22) // self.tracks))
        for region in self._regions:
            for start in range(0, region.length, at_once):
                bases = min(at_once, region.length - start)
                values = np.frombuffer(self._file.read(4 * self.tracks * bases), dtype=np.float32)
                yield region, start, values.reshape(bases, self.tracks)
