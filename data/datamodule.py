"""Lightning's view of the data: which windows train, which validate."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from genomamba.data.curriculum import Curriculum, flat, stage_lengths
from genomamba.data.datasets import (
    Batch,
    FixedWindows,
    RunSampler,
    SampleKey,
    TrainingWindows,
    Window,
    WindowReader,
    collate,
    shared_batches,
)
from genomamba.data.references import Genome
from genomamba.data.windows import RandomWindows, merged, sequenced_regions, subtract, tiles
from genomamba.data.workers import begin_worker
from genomamba.genome.interval import Interval

_PREFETCH = 4  # batches read ahead by each worker


class ReferenceWindows(LightningDataModule):
    """Random windows of a reference for training, tiles of the held-out regions for validation.

    Args:
        reference: the genome.
        include: where training windows may lie.
        valid: regions tiled for validation; no training window holds a base of them.
        test: regions that nothing here may see.
        window: bases per training window.
        batch_size: windows per step.
        micro_batch: windows per batch, of which some may make a step.
        steps: of the whole run.
        steps_per_epoch: steps per epoch.
        seed: of window positions and strands.
        both_strands: whether half of the windows are reverse-complemented.
        softmask_weight: what a lower-case base counts in the loss.
        max_n: windows with a larger share of N are passed over.
        mixture: contigs and the share of windows that they get.
        pack: whether short regions share rows.
        workers: loader processes; the order of samples does not depend on it.
        stride: windows start at multiples of it.
        jitter: and up to so many bases further on.
        first_window: bases per window at first, which double until they are ``window``; None: all are that long.
        short_share: of the steps that is spent below ``window``.
    """

    def __init__(
        self,
        reference: Genome,
        include: Sequence[Interval],
        valid: Sequence[Interval],
        test: Sequence[Interval],
        *,
        window: int,
        batch_size: int,
        micro_batch: int,
        steps: int,
        steps_per_epoch: int,
        seed: int,
        both_strands: bool,
        softmask_weight: float,
        max_n: float,
        mixture: Sequence[tuple[frozenset[str], float]] | None,
        pack: bool,
        workers: int,
        stride: int = 1,
        jitter: int = 0,
        first_window: int | None = None,
        short_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.batch_size, self.micro_batch, self.workers = batch_size, micro_batch, workers
        reader = WindowReader(reference, softmask_weight)
        self.training_regions = sequenced_regions(reference, subtract(merged(include), [*valid, *test]))
        lengths = stage_lengths(first_window or window, window)
        stages = {}
        for length in lengths:
            random = RandomWindows(
                self.training_regions,
                length,
                seed=seed,
                both_strands=both_strands,
                mixture=mixture,
                pack=pack,
                stride=stride,
                jitter=jitter,
            )
            stages[length] = TrainingWindows(random, reader, max_n)
        self.training = Curriculum(
            stages,
            short_share if len(stages) > 1 else 0.0,
            samples_per_step=batch_size,
            samples_per_epoch=steps_per_epoch * batch_size,
            steps=steps,
        )
        self.steps_per_epoch, self.first_step = steps_per_epoch, 0
        self.validation = FixedWindows(tiles(sequenced_regions(reference, valid), window), reader)

    @property
    def steps(self) -> int:
        """Of the whole run; may be set until it begins."""
        return self.training.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.training.steps = steps

    def state_dict(self) -> dict[str, Any]:
        """The place in the order of samples, which is all that decides what comes next."""
        return {"samples": self.trainer.global_step * self.batch_size} if self.trainer is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_step = state_dict["samples"] // self.batch_size

    def train_dataloader(self) -> DataLoader:
        """Every sample that is still to come, and one step more: a loader must not be empty."""
        total, per_epoch = ((steps * self.batch_size) for steps in (self.steps + 1, self.steps_per_epoch))
        rank, ranks = self._place()
        sampler = RunSampler(
            total, per_epoch, self.first_step * self.batch_size, block=self.micro_batch, rank=rank, ranks=ranks
        )
        return self._loader(self.training, batch_size=self.micro_batch, sampler=sampler)

    def _place(self) -> tuple[int, int]:
        """The rank and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Tensors only; does not wait for the copy."""
        return batch.to(device)

    def first_batch(self, length: int) -> Batch:
        """Of the run, were it to begin with windows of that length."""
        keys = [SampleKey(0, sample) for sample in range(self.micro_batch)]
        return collate_samples([self.training.of_length(length, key) for key in keys])

    def val_dataloader(self) -> DataLoader:
        batches = shared_batches(len(self.validation), self.micro_batch, *self._place())
        return self._loader(self.validation, batch_sampler=batches)

    def _loader(self, data: Dataset, **kwargs: Any) -> DataLoader:
        if self.workers:
            gc.collect()  # before they are forked; see `begin_worker`
        return DataLoader(
            data,
            collate_fn=collate_samples,
            num_workers=self.workers,
            worker_init_fn=begin_worker,
            prefetch_factor=_PREFETCH if self.workers else None,
            pin_memory=torch.cuda.is_available(),  # such memory is copied to the device while it computes
            generator=torch.Generator(),  # of its own: a new iterator must not advance the one that dropout draws from
            **kwargs,
        )


def collate_samples(samples: Sequence[Window | list[Window]]) -> Batch:
    """``collate`` of all their windows."""
    return collate(flat(samples))
