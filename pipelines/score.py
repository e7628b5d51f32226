"""Score the variants of a VCF or BCF into an annotated copy of it, or into a table.

Every record comes out, in order. INFO gains GENOMAMBA (ALLELE|MODEL|LLR|PROB|STATUS per ALT), GM_LLR and GM_PROB
(missing unless the model is a classifier). LLR is log p(alt) - log p(ref) in nats, averaged over both strands: of the
window under a causal model, of the bases that change, hidden, under a masked one. What cannot be scored says why in
STATUS; a summary by status goes to stderr. Until the output is whole, what
is done of it is kept beside it in OUTPUT.shards; --resume goes on from there.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from genomamba import __version__
from genomamba.errors import ConfigError, GenoMambaError
from genomamba.model.pretrained import SHIPPED
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import WHEN_NOT_GIVEN, model_folder
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import torch

    from genomamba.data.prescan import Prescan
    from genomamba.data.reference import Reference
    from genomamba.data.variants import Status
    from genomamba.data.vcf import VcfReader, VcfRecord
    from genomamba.pipelines.shards import Shards
    from genomamba.scoring.batch_size import Halved
    from genomamba.scoring.records import AlleleScore
    from genomamba.scoring.variants import VariantScorer


SKIPPED_TOO_MANY = 3
# Options that have a say in the scores, besides the inputs and the window: a run goes on only with the same ones.
DECISIVE = ("batch_size", "shard_size", "window_step", "reuse_state", "distances", "contig_aliases", "rna", "engine")


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r", reads="file")
    input: str = option("VCF or BCF; - is stdin", short="-i", reads="file")
    output: str = option(
        "annotated .vcf, .vcf.gz (with index) or .bcf, or a table of alleles, .tsv, .tsv.gz or .parquet; - is VCF on "
        "stdout",
        short="-o",
    )
    model: str = option(
        f"run folder of `pretrain` or `finetune variants`; {WHEN_NOT_GIVEN}", SHIPPED, short="-m", reads="model"
    )
    window: int | None = option(
        "bases of context around each variant; the model's own when not given", None, at_least=2
    )
    window_step: int = option(
        "move windows' middles to multiples of so many bases: neighbours then share a window, which a causal model "
        "reads once; at most a quarter of the window",
        1,
        at_least=1,
    )
    batch_size: int | Literal["auto"] = option(
        "variants per forward pass; auto: as many as are likely to fit, halved when they do not", "auto", at_least=1
    )
    reuse_state: bool = option("causal models read once what both alleles share; false changes rounding alone", True)
    distances: bool = option("also distances between the hidden states of alt and ref, at the site and pooled", False)
    max_skip_frac: float = option("exit with 3 when a larger share of alleles was skipped", 1.0, at_least=0)
    max_mismatch_frac: float = option(
        "refuse the input when REF disagrees in a larger share of alleles", 0.05, at_least=0
    )
    contig_aliases: Literal["none", "auto"] = option(
        "auto: match 1 with chr1 and MT with chrM where lengths agree", "none"
    )
    rna: bool = option("read U in the reference as T", False)
    shard_size: int = option("records per shard: what a run that is killed may lose", 1024, at_least=1)
    device: Device = option("where to run", "auto")
    devices: int | Literal["auto"] = option(
        "GPUs, or processes on a CPU, each of which scores shards; auto: every GPU", 1, at_least=1
    )
    engine: Literal["local", "ray"] = option("ray: shards are scored by Ray's actors, here or on a cluster", "local")
    ray_address: str | None = option("of a running Ray cluster; one is started here when not given", None)
    ray_actors: int | None = option("how many; one per CPU, or GPU, of the cluster when not given", None, at_least=1)
    workers: int = option("threads that read windows ahead", 0, short="-@", at_least=0)
    summary: str | None = option("JSON file for the counts by status", None)
    resume: bool = option(
        "go on with what a stopped run left; the output is the same to the byte. One that is finished is refused as "
        "existing, unless with --force instead",
        False,
    )
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    import sys

    check_outputs(config)  # before what takes seconds to import

    from genomamba.data.pairs import widest_step
    from genomamba.data.prescan import prescan
    from genomamba.data.vcf import VcfReader
    from genomamba.errors import CheckpointError, Terminated
    from genomamba.model.folder import load_model
    from genomamba.model.sequence_heads import SequenceModel, TokenModel
    from genomamba.pipelines.model_provenance import model_window
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.score_output import check_format
    from genomamba.pipelines.shards import Shards
    from genomamba.scoring.variants import VariantScorer
    from genomamba.tasks.trainer import resolve_device

    to_stdout = config.output == "-"
    if not to_stdout:
        check_format(config.output)
    device = resolve_device(config.device)
    devices = each_device(config.devices, device)
    config = replace(config, model=model_folder(config.model))
    model = load_model(config.model)
    if isinstance(model, SequenceModel | TokenModel):
        raise CheckpointError(
            "a model of whole sequences has no score of a variant",
            "give a language model or a variant classifier",
            file=config.model,
        )
    window = config.window or model_window(config.model)
    if config.window_step > widest_step(window):
        raise ConfigError(
            f"at most a quarter of the window, {widest_step(window)}",
            "lower it",
            field="window_step",
            value=config.window_step,
        )
    reference = open_reference(config.reference, rna=config.rna)
    with VcfReader(config.input) as reader:
        checked = prescan(
            reader,
            reference,
            window=window,
            aliases=None if config.contig_aliases == "none" else "auto",
            max_mismatch=config.max_mismatch_frac,
        )
        for warning in checked.warnings:
            print(warning, file=sys.stderr)
        if checked.lower_case:
            print(f"{checked.lower_case:,} records with lower-case alleles were read as upper case", file=sys.stderr)
        scorer = VariantScorer(
            model,
            reference,
            window=window,
            batch_size=None if config.batch_size == "auto" else config.batch_size,
            device=device,
            step=config.window_step,
            reuse_state=config.reuse_state,
            with_distances=config.distances,
            workers=config.workers,
        )
        halved = None
        job = Job(config, reader, reference, checked, scorer)
        if to_stdout:
            counts = Counts(checked.records, write_scores(job, None))
            counts.write(config)
        else:
            facts = {
                "input": reader.fingerprint(),
                "reference": reference.fingerprint,
                **model_facts(config.model),
                "window": window,
                "device": device.type,
                **{name: getattr(config, name) for name in DECISIVE},
            }
            with Shards(config.output, facts, resume=config.resume, force=config.force) as shards:
                try:
                    if config.engine == "ray" or len(devices) > 1:
                        halved = score_missing(job, shards, devices)
                    counts = Counts(checked.records, write_scores(job, shards))
                    counts.write(config)
                except (KeyboardInterrupt, Terminated) as stop:
                    raise InterruptedScoring(config.output, stop, checked.records, config.shard_size, shards) from stop
        if (smaller := halved or scorer.halved) is not None:
            planned, left = smaller
            print(f"batches of {planned} did not fit the memory; they were halved to {left}", file=sys.stderr)
    return counts.report(config, sys.stderr)


def check_outputs(config: Config) -> None:
    """Whether outputs may be written, in the way that is asked for; raises ConfigError or OutputError."""
    from genomamba.files import refuse_existing
    from genomamba.pipelines.shards import check_place

    if config.engine == "ray" and config.devices != 1:
        raise ConfigError("Ray has actors", "give --ray-actors", field="devices", value=config.devices)
    if config.output != "-":
        check_place(config.output, config.summary, resume=config.resume, force=config.force)
        return
    if config.resume:
        raise ConfigError("stdout cannot be resumed", "give a file as -o", field="resume")
    if config.engine != "local":
        raise ConfigError("stdout keeps no shards", "give a file as -o", field="engine", value=config.engine)
    if config.devices != 1:
        raise ConfigError("stdout keeps no shards", "give a file as -o", field="devices", value=config.devices)
    if config.summary is not None:
        refuse_existing(config.summary, force=config.force)


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
    import sys

    from genomamba.model.folder import weights_fingerprint
    from genomamba.pipelines.score_output import open_output
    from genomamba.progress import progress_bar

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
    from genomamba.scoring.records import from_plain, score_records, to_plain

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
    import torch

    from genomamba.tasks.strategies import check_devices

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
    from genomamba.pipelines.device_engine import score_on_devices
    from genomamba.pipelines.shard_scorer import Recipe
    from genomamba.progress import progress_bar

    config, scorer = job.config, job.scorer
    options = {
        "window": scorer.window,
        "batch_size": None if config.batch_size == "auto" else config.batch_size,
        "step": config.window_step,
        "reuse_state": config.reuse_state,
        "with_distances": config.distances,
        "workers": config.workers,
    }
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


def model_facts(folder: str) -> dict[str, str]:
    """What of the model and the program that runs it has a say in the scores and in how they are labelled."""
    import torch

    from genomamba.model.folder import CONFIG, weights_fingerprint

    return {
        "model": model_name(folder),
        "weights": weights_fingerprint(folder),
        "configuration": (Path(folder) / CONFIG).read_text(encoding="utf-8"),
        "genomamba": __version__,
        "torch": torch.__version__,
    }


def model_name(folder: str) -> str:
    """The folder's name, without what INFO cannot hold."""
    from genomamba.pipelines.score_output import plain

    return plain(Path(folder).resolve().name)


class Counts(NamedTuple):
    """What became of the input."""

    records: int
    statuses: Counter[Status]

    @property
    def alleles(self) -> int:
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        return sum(number for status, number in self.statuses.items() if status.scored)

    def write(self, config: Config) -> None:
        """Writes them as JSON where that is asked for."""
        from genomamba.files import whole_file

        if config.summary is None:
            return
        by_status = {str(status): number for status, number in sorted(self.statuses.items())}
        figures = {"records": self.records, "alleles": self.alleles, "scored": self.scored, "by_status": by_status}
        with whole_file(config.summary) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    def report(self, config: Config, stream: TextIO) -> int:
        """Prints them; returns the exit code."""
        print(
            f"{config.output}: {self.records:,} records, {self.alleles:,} alleles, {self.scored:,} scored", file=stream
        )
        for status, number in sorted(self.statuses.items(), key=lambda item: -item[1]):
            print(f"  {status:<26}{number:>10,}", file=stream)
        skipped = (self.alleles - self.scored) / self.alleles if self.alleles else 0.0
        if skipped > config.max_skip_frac:
            print(f"max_skip_frac={config.max_skip_frac}: {skipped:.3f} of the alleles were skipped", file=stream)
            return SKIPPED_TOO_MANY
        return 0
