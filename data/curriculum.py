"""From short windows to long ones, at a constant number of bases per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.utils.data import Dataset

from genomamba.data.datasets import SampleKey, TrainingWindows, Window
from genomamba.errors import ConfigError


def stage_lengths(first: int, window: int) -> list[int]:
    """``first``, twice that, and so on up to ``window``.

    Raises:
        ConfigError: that is not a power of 2 times as long.
    """
    lengths = [first]
    while lengths[-1] < window:
        lengths.append(2 * lengths[-1])
    if lengths[-1] != window:
        raise ConfigError(
            f"doubled again and again it does not become the window of {window:,} bases",
            "give that divided by a power of 2",
            field="first_window",
            value=first,
        )
    return lengths


class Curriculum(Dataset[list[Window]]):
    """A sample is one long window, or as many short ones as have its bases, by the step that it belongs to.

    The short lengths share the first ``share`` of the steps equally. Each sample is still a pure function of
    (seed, epoch, sample), the number of steps being given.

    Args:
        stages: the windows of each length, from the shortest to the longest.
        share: of the steps that is spent below the longest.
        samples_per_step: long windows in a step.
        samples_per_epoch: in an epoch.
        steps: of the whole run; may be set later.
    """

    def __init__(
        self,
        stages: Mapping[int, TrainingWindows],
        share: float,
        *,
        samples_per_step: int,
        samples_per_epoch: int,
        steps: int,
    ) -> None:
        self.stages, self.share, self.steps = dict(sorted(stages.items())), share, steps
        self.samples_per_step, self.samples_per_epoch = samples_per_step, samples_per_epoch

    def length(self, step: int) -> int:
        """Bases per window in that step."""
        lengths = list(self.stages)
        short = self.share * self.steps
        stage = int(step / short * (len(lengths) - 1)) if short else len(lengths)
        return lengths[min(stage, len(lengths) - 1)]

    @property
    def shares(self) -> dict[int, float]:
        """Of the steps, by the windows' length."""
        *short, longest = self.stages
        return {**{length: self.share / len(short) for length in short}, longest: 1 - self.share}

    def __getitem__(self, key: SampleKey) -> list[Window]:
        step = (key.epoch * self.samples_per_epoch + key.sample) // self.samples_per_step
        return self.of_length(self.length(step), key)

    def of_length(self, length: int, key: SampleKey) -> list[Window]:
        """What the sample would be in windows of that length."""
        pieces = max(self.stages) // length
        windows = self.stages[length]
        return [windows[SampleKey(key.epoch, key.sample * pieces + piece)] for piece in range(pieces)]


def flat(samples: Sequence[Window | list[Window]]) -> list[Window]:
    """All windows of a batch's samples, in order."""
    return [window for sample in samples for window in (sample if isinstance(sample, list) else [sample])]
