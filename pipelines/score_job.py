"""What `score` does with a file that it may score: shard by shard, here or in other processes, into the output."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from genomamba import __version__
from genomamba.data.prescan import Prescan
from genomamba.data.reference import Reference
from genomamba.data.variants import Status
from genomamba.data.vcf import VcfReader, VcfRecord
from genomamba.errors import GenoMambaError
from genomamba.model.folder import weights_fingerprint
from genomamba.model.folder_files import CONFIG
from genomamba.pipelines.device_engine import score_on_devices
from genomamba.pipelines.score_output import open_output, plain
from genomamba.pipelines.shard_scorer import Recipe
from genomamba.pipelines.shards import Facts, Shards
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.records import AlleleScore, from_plain, score_records, to_plain
from genomamba.scoring.variants import VariantScorer
from genomamba.tasks.device import check_devices

if TYPE_CHECKING:
    from genomamba.pipelines.score import Config

# Options that have a say in the scores, besides the inputs and the window.
DECISIVE = ("batch_size", "shard_size", "window_step", "reuse_state", "distances", "contig_aliases", "rna", "engine")


class Job(NamedTuple):
    """What is to be scored, and by what."""

    config: Config
    reader: VcfReader
    reference: Reference
    checked: Prescan
    scorer: VariantScorer


def write_scores(job: Job, shards: Shards | None) -> Counter[Status]:
    """Scores shard by shard, or takes what is done, and writes every record; returns the alleles by status.

    Args:
        job: what to do.
        shards: where finished shards are kept; None keeps none.
    """
    config, checked = job.config, job.checked
    output = open_output(
        config.output,
        header=job.reader.header,
        contigs=checked.lengths,
        model=model_name(config.model),
        weights=weights_fingerprint(config.model),
        window=job.scorer.window,
        distances=config.distances,
        force=config.force or config.resume,  # what may not be replaced was refused at the start
        folder=shards.folder if shards else None,
    )
    statuses: Counter[Status] = Counter()
    with output as writer, progress_bar() as bar:
        task = bar.add_task("scoring", total=checked.records, note="records")
        for number, chunk in cut(job.reader, config.shard_size):
            for record, alleles in zip(chunk, _shard(job, number, chunk, shards), strict=True):
                writer.write(record, alleles)
                statuses.update(allele.status for allele in alleles)
            bar.advance(task, len(chunk))
        if shards:
            shards.publishing()
    if writer.note is not None:
        print(writer.note, file=sys.stderr)
    return statuses


def _shard(
    job: Job, number: int, records: Sequence[VcfRecord], shards: Shards | None
) -> Sequence[Sequence[AlleleScore]]:
    done = shards.load(number) if shards else None
    if done is not None:
        return from_plain(done)
    scores = score_records(records, job.checked.contigs, job.reference, job.scorer)
    if shards:
        shards.save(number, to_plain(scores))
    return scores


def cut(records: Iterable[VcfRecord], size: int) -> Iterator[tuple[int, list[VcfRecord]]]:
    """Shards, numbered from 0; the last may be smaller."""
    waiting = iter(records)
    for number in count():
        chunk = list(islice(waiting, size))
        if not chunk:
            return
        yield number, chunk


def each_device(wanted: int | Literal["auto"], device: torch.device) -> list[str]:
    """The devices that are asked for, as torch calls them; a CPU stands there once per process.

    Raises:
        ConfigError: more GPUs than there are.
    """
    if device.type == "cpu":
        return ["cpu"] * (1 if wanted == "auto" else wanted)
    count = torch.cuda.device_count() if wanted == "auto" else wanted
    check_devices("auto", count, device)
    return [f"cuda:{index}" for index in range(count)]


def score_missing(job: Job, shards: Shards, devices: list[str]) -> Halved | None:
    """Has every shard that is not done scored by other processes: one per device, or Ray's actors.

    Returns:
        The smallest of their batches, where they did not fit the memory.
    """
    config, scorer = job.config, job.scorer
    options = scorer_options(config, scorer.window)
    model, reference = (str(Path(path).resolve()) for path in (config.model, config.reference))
    recipe = Recipe(model, reference, config.rna, job.checked.contigs, scorer.device.type, options)
    total = -(-job.checked.records // config.shard_size)
    if shards.count() == total:
        return None
    smaller: list[Halved] = []
    with progress_bar() as bar:
        where = "on Ray" if config.engine == "ray" else f"on {len(devices)} devices"
        task = bar.add_task(where, total=total, completed=shards.count(), note="shards")

        def save(number: int, scores: Any, halved: Halved | None) -> None:
            shards.save(number, scores)
            if halved is not None:
                smaller.append(halved)
            bar.advance(task)

        missing = (each for each in cut(job.reader, config.shard_size) if not shards.has(each[0]))
        if config.engine == "ray":
            from genomamba.pipelines.ray_engine import score_on_ray

            score_on_ray(recipe, missing, save, address=config.ray_address, actors=config.ray_actors)
        else:
            score_on_devices(recipe, missing, save, devices[: total - shards.count()])
    return min(smaller, key=lambda halved: halved.left, default=None)


class InterruptedScoring(GenoMambaError):
    """A signal stopped the run; what is done is kept. The exit code is 128 + the signal's number."""

    def __init__(self, output: str, stop: BaseException, records: int, shard_size: int, shards: Shards) -> None:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        done = min(records, shards.count() * shard_size)
        super().__init__(
            f"{output}: stopped by {number.name} with {done:,} of {records:,} records scored; "
            "the same command with --resume goes on"
        )
        self.exit_code = 128 + number


def facts(job: Job) -> Facts:
    """Everything that has a say in the output's bytes: a run goes on only with the same."""
    folder = job.config.model
    return {
        "input": job.reader.fingerprint(),
        "reference": job.reference.fingerprint,
        "model": model_name(folder),
        "weights": weights_fingerprint(folder),
        "configuration": (Path(folder) / CONFIG).read_text(encoding="utf-8"),
        "genomamba": __version__,
        "torch": torch.__version__,
        "window": job.scorer.window,
        "device": job.scorer.device.type,
        **{name: getattr(job.config, name) for name in DECISIVE},
    }


def scorer_options(config: Config, window: int) -> dict[str, Any]:
    """Of `VariantScorer`, whichever process it is in."""
    return {
        "window": window,
        "batch_size": None if config.batch_size == "auto" else config.batch_size,
        "step": config.window_step,
        "reuse_state": config.reuse_state,
        "with_distances": config.distances,
        "workers": config.workers,
    }


def model_name(folder: str) -> str:
    """The folder's name, without what INFO cannot hold."""
    return plain(Path(folder).resolve().name)
