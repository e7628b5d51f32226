"""Lightning's view of the data: which windows train, which validate."""

from __future__ import annotations

from collections.abc import Sequence

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from genomamba.data.datasets import FixedWindows, KeySampler, TrainingWindows, WindowReader, collate
from genomamba.data.reference import Reference
from genomamba.data.windows import RandomWindows, sequenced_regions, subtract, tiles
from genomamba.genome.interval import Interval


class ReferenceWindows(LightningDataModule):
    """Random windows of a reference for training, tiles of the held-out regions for validation.

    Args:
        reference: the genome.
        include: where training windows may lie.
        valid: regions tiled for validation; no training window holds a base of them.
        test: regions that nothing here may see.
        window: bases per training window.
        batch_size: windows per batch.
        windows_per_epoch: training samples per epoch.
        seed: of window positions and strands.
        both_strands: whether half of the windows are reverse-complemented.
        softmask_weight: what a lower-case base counts in the loss.
        workers: loader processes; the order of samples does not depend on it.
    """

    def __init__(
        self,
        reference: Reference,
        include: Sequence[Interval],
        valid: Sequence[Interval],
        test: Sequence[Interval],
        *,
        window: int,
        batch_size: int,
        windows_per_epoch: int,
        seed: int,
        both_strands: bool,
        softmask_weight: float,
        workers: int,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        reader = WindowReader(reference, softmask_weight)
        self.training_regions = sequenced_regions(reference, subtract(include, [*valid, *test]))
        random = RandomWindows(self.training_regions, window, seed=seed, both_strands=both_strands)
        self.training = TrainingWindows(random, reader)
        self.sampler = KeySampler(windows_per_epoch)
        self.validation = FixedWindows(tiles(sequenced_regions(reference, valid), window), reader)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.training,
            batch_size=self.batch_size,
            sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(
            self.validation, batch_size=self.batch_size, collate_fn=collate, num_workers=self.workers, shuffle=False
        )
