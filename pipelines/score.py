"""Score the variants of a VCF or BCF into an annotated copy of it, or into a table.

Every record comes out, in order. INFO gains GENOMAMBA (ALLELE|MODEL|LLR|PROB|STATUS per ALT), GM_LLR and GM_PROB
(missing unless the model is a classifier). LLR is log p(alt) - log p(ref) in nats, averaged over both strands: of the
window under a causal model, of the bases that change, hidden, under a masked one. What cannot be scored says why in
STATUS; a summary by status goes to stderr. Until the output is whole, what
is done of it is kept beside it in OUTPUT.shards; --resume goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from genomamba.data.table_write import SUFFIXES
from genomamba.errors import ConfigError
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

FORMATS = (".vcf", ".vcf.gz", ".bcf", *(f".{suffix}" for suffix in SUFFIXES), ".vcf.bgz")


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r", reads="file")
    input: str = option("VCF or BCF; - is stdin", short="-i", reads="file")
    output: str = option(
        "annotated .vcf, .vcf.gz (with index) or .bcf, or a table of alleles, .tsv, .tsv.gz or .parquet; - is VCF on "
        "stdout",
        short="-o",
        writes="own",
        formats=FORMATS,
        stdout=True,
    )
    model: str = common.model_or_shipped("run folder of `pretrain` or `finetune variants`", "model")
    window: int | None = option(
        "bases of context around each variant; the model's own when not given", None, at_least=2
    )
    window_step: int | Literal["auto"] = option(
        "move windows' middles to a grid, so many bases apart: neighbours then share a window, which a causal model "
        "reads once; at most a quarter of the window. auto: a sixteenth of it for a causal language model, otherwise "
        "1, which moves none",
        "auto",
        at_least=1,
    )
    batch_size: int | Literal["auto"] = common.batch_size("variants")
    reuse_state: bool = option("causal models read once what both alleles share; false changes rounding alone", True)
    distances: bool = option("also distances between the hidden states of alt and ref, at the site and pooled", False)
    max_skip_frac: float = option("exit with 3 when a larger share of alleles was skipped", 1.0, at_least=0, at_most=1)
    max_mismatch_frac: float = common.max_mismatch_frac()
    contig_aliases: common.ContigAliases = common.contig_aliases(" where lengths agree")
    rna: bool = option("read U in the reference as T", False)
    shard_size: int = common.shard_size("records")
    device: Device = option("where to run", "auto")
    devices: int | Literal["auto"] = common.devices()
    engine: Literal["local", "ray"] = option("ray: shards are scored by Ray's actors, here or on a cluster", "local")
    ray_address: str | None = option("of a running Ray cluster; one is started here when not given", None)
    ray_actors: int | None = option("how many; one per CPU, or GPU, of the cluster when not given", None, at_least=1)
    workers: int = option("threads that read windows ahead", 0, short="-@", at_least=0)
    summary: str | None = option("JSON file for the counts by status", None, writes="own", formats=common.JSON)
    resume: bool = common.resume()
    force: bool = option("replace an existing output", False)


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """Options that this configuration does not read, and what they count with."""
    if config.engine != "ray":
        yield "ray_address", "--engine ray"
        yield "ray_actors", "--engine ray"


def run(config: Config) -> int:
    check_outputs(config)  # before what takes seconds to import

    from genomamba.data.pairs import widest_step
    from genomamba.data.prescan import prescan
    from genomamba.data.vcf import VcfReader
    from genomamba.data.vcf_write import check_declared
    from genomamba.errors import CheckpointError
    from genomamba.model.folder import load_model
    from genomamba.model.sequence_heads import SequenceModel, TokenModel
    from genomamba.pipelines.model_provenance import model_window
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.score_job import (
        Job,
        amounts,
        facts,
        score_missing,
        scorer_options,
        write_scores,
    )
    from genomamba.pipelines.score_output import ADDED
    from genomamba.pipelines.score_summary import Counts
    from genomamba.pipelines.sharded import each_device, kept, say_halved
    from genomamba.scoring.variants import VariantScorer, shared_step
    from genomamba.tasks.device import resolve_device

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
    if config.window_step == "auto":
        config = replace(config, window_step=shared_step(model, window))
    elif config.window_step > widest_step(window):
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
        if config.output.endswith(".bcf"):
            check_declared(reader.header, reader, config.output, ADDED)
        for warning in checked.warnings:
            print(warning, file=sys.stderr)
        if checked.lower_case:
            print(f"{checked.lower_case:,} records with lower-case alleles were read as upper case", file=sys.stderr)
        scorer = VariantScorer(model, reference, device=device, **scorer_options(config, window))
        halved = None
        job = Job(config, reader, reference, checked, scorer)
        with kept(config, partial(facts, job), amounts(job)) as shards:
            if shards is not None and (config.engine == "ray" or len(devices) > 1):
                halved = score_missing(job, shards, devices)
            counts = Counts(checked.records, write_scores(job, shards))
            counts.write(config)
        say_halved(halved or scorer.halved)
    return counts.report(config, sys.stderr)


def check_outputs(config: Config) -> None:
    """Whether outputs may be written, in the way that is asked for; raises ConfigError or OutputError."""
    from genomamba.files import refuse_existing
    from genomamba.pipelines.shards import check_place, refuse_stdout

    if config.engine == "ray" and config.devices != 1:
        raise ConfigError("Ray has actors", "give --ray-actors", field="devices", value=config.devices)
    if config.output != "-":
        check_place(config.output, [config.output, config.summary], resume=config.resume, force=config.force)
        return
    if config.engine != "local":
        raise ConfigError("stdout keeps no shards", "give a file as -o", field="engine", value=config.engine)
    refuse_stdout(resume=config.resume, devices=config.devices)
    if config.summary is not None:
        refuse_existing(config.summary, force=config.force)
