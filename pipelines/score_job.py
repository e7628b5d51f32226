"""What `score` does with a file that it may score: shard by shard, here or in other processes, into the output."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genomamba.data.prescan import Prescan
from genomamba.data.reference import Reference
from genomamba.data.variants import Status
from genomamba.data.vcf import VcfReader, VcfRecord
from genomamba.model.folder import weights_fingerprint
from genomamba.model.folder_files import CONFIG
from genomamba.pipelines.score_output import open_output, plain
from genomamba.pipelines.shard_scorer import ScoreRecipe
from genomamba.pipelines.sharded import (
    Amounts,
    Save,
    cut,
    fixed_size,
    in_order,
    missing_elsewhere,
    missing_on_devices,
    sizes,
    surroundings,
)
from genomamba.pipelines.shards import Facts, Shards
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import Halved
from genomamba.scoring.records import AlleleScore, from_plain, score_records, to_plain
from genomamba.scoring.variants import VariantScorer

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
        step=job.scorer.step,
        distances=config.distances,
        force=config.force or config.resume,  # what may not be replaced was refused at the start
        folder=shards.folder if shards else None,
    )
    statuses: Counter[Status] = Counter()
    parts = cut(job.reader, config.shard_size)
    scored = in_order(shards, parts, partial(_scores, job), pack=to_plain, unpack=from_plain)
    with output as writer, progress_bar() as bar:
        task = bar.add_task("scoring", total=checked.records, note="records")
        for chunk, scores in scored:
            for record, alleles in zip(chunk, scores, strict=True):
                writer.write(record, alleles)
                statuses.update(allele.status for allele in alleles)
            bar.advance(task, len(chunk))
        if shards:
            shards.publishing()
    if writer.note is not None:
        print(writer.note, file=sys.stderr)
    return statuses


def _scores(job: Job, records: Sequence[VcfRecord]) -> list[list[AlleleScore]]:
    return score_records(records, job.checked.contigs, job.reference, job.scorer)


def score_missing(job: Job, shards: Shards, devices: list[str]) -> Halved | None:
    """Has every shard that is not done scored by other processes: one per device, or Ray's actors.

    Returns:
        The smallest of their batches, where they did not fit the memory.
    """
    config, scorer = job.config, job.scorer
    options = scorer_options(config, scorer.window)
    model, reference = (str(Path(path).resolve()) for path in (config.model, config.reference))
    recipe = ScoreRecipe(model, reference, config.rna, job.checked.contigs, options)
    parts, total = cut(job.reader, config.shard_size), len(amounts(job).shards)
    if config.engine != "ray":
        return missing_on_devices(shards, parts, total, recipe, devices)
    from genomamba.pipelines.ray_engine import score_on_ray

    def engine(missing: Iterable[tuple[int, Any]], save: Save, left: int) -> None:
        address, actors = config.ray_address, config.ray_actors
        score_on_ray(recipe, missing, save, device=scorer.device.type, address=address, actors=actors)

    return missing_elsewhere(shards, parts, total, "on Ray", engine)


def amounts(job: Job) -> Amounts:
    """Records of each shard."""
    return Amounts(sizes(job.checked.records, job.config.shard_size), "records scored")


def facts(job: Job) -> Facts:
    """Everything that has a say in the output's bytes: a run goes on only with the same."""
    folder = job.config.model
    return {
        "command": "score",
        "input": job.reader.fingerprint(),
        "reference": job.reference.fingerprint,
        "model": model_name(folder),
        "weights": weights_fingerprint(folder),
        "configuration": (Path(folder) / CONFIG).read_text(encoding="utf-8"),
        "window": job.scorer.window,
        **surroundings(job.scorer.device),
        **{name: getattr(job.config, name) for name in DECISIVE},
    }


def scorer_options(config: Config, window: int) -> dict[str, Any]:
    """Of `VariantScorer`, whichever process it is in."""
    return {
        "window": window,
        "batch_size": fixed_size(config.batch_size),
        "step": config.window_step,
        "reuse_state": config.reuse_state,
        "with_distances": config.distances,
        "workers": config.workers,
    }


def model_name(folder: str) -> str:
    """The folder's name, without what INFO cannot hold."""
    return plain(Path(folder).resolve().name)
