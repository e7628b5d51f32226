"""What `finetune tracks` does between reading its input and measuring: training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genomamba.data.track_windows import RandomTrackWindows, TrackTiles, collate_tracks
from genomamba.data.windows import RandomWindows, tiles
from genomamba.model.sequence_heads import TokenModel
from genomamba.pipelines.fit_loop import (
    VALIDATION_TOKENS,
    Stopped,
    fit_task,
    loader,
    made_with,
    steps_of,
    training_clock,
)
from genomamba.pipelines.track_input import TrackData
from genomamba.tasks.adaptation import prepare
from genomamba.tasks.tracks import TrackTask

if TYPE_CHECKING:
    from genomamba.pipelines.finetune_tracks import Config


def fit(
    config: Config,
    model: TokenModel,
    data: TrackData,
    folder: Path,
    tracks: dict[str, Any],
    pretrained: dict[str, str] | None,
) -> tuple[dict[str, float], Stopped | None]:
    """Trains the model in place; returns the figures of the validation that chose the weights.

    Raises:
        InterruptedTraining: a signal came before anything was validated, or Ctrl-C twice.
    """
    drawn = RandomWindows(
        data.train.regions, config.window, seed=config.seed, both_strands=config.both_strands, pack=False
    )
    training = RandomTrackWindows(drawn, data.reader)
    bases = sum(region.length for region in data.train.regions)
    windows = config.epoch_windows or -(-bases // config.window)
    validation = TrackTiles(tiles(data.valid.regions, config.window), data.reader)
    example = collate_tracks([validation[0]])
    finish = prepare(model, config.method, config.lora, lambda adapted: adapted(example.ids, example.length))
    clock = training_clock(config)
    task = TrackTask(
        model,
        config.optimizer,
        steps_of(config, windows),
        mean=data.train.mean,
        spread=data.train.spread,
        average=config.average,
        patience=config.patience,
        frozen=config.method == "head",
        clock=clock.gone,
    )
    at_once = max(config.batch_size, VALIDATION_TOKENS // config.window)
    stopped = fit_task(
        task,
        training,
        loader(config, dataset=validation, collate_fn=collate_tracks, batch_size=at_once),
        options=config,
        examples=windows,
        collate=collate_tracks,
        shuffled=False,  # windows are drawn anew in each epoch
        clock=clock,
        folder=folder,
        bases_per_step=config.window * config.batch_size,
        facts=made_with(
            pretrained,
            reference=[data.reader.reference.fingerprint.encode()],
            tracks=(f"{name} {each['sha256']}".encode() for name, each in tracks.items()),
        ),
    )
    finish()
    task.fold()
    return task.best, stopped
