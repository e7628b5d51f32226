"""Bits per base along whole contigs or regions under a language model, as a bigWig, bedGraph or table.

Each region is read from end to end in constant memory. A causal model carries its state, so that a base is predicted
from all of the region before it. A model that looks both ways reads overlapping windows and sees every base hidden
once, some others being hidden with it. What is no base, and a causal model's first, has no value. Until a file is
whole, what is done of it is kept beside it in OUTPUT.shards, whole regions at a time; --resume goes on from there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that is to be measured", short="-r", reads="file")
    model: str = common.any_model_or_shipped("language model")
    output: str = option(
        ".bw, .bedgraph, .tsv, the last two also with .gz; - is bedGraph on stdout",
        "-",
        short="-o",
        writes="own",
        stdout=True,
    )
    regions: str | None = common.bed_of_regions("whole contigs")
    region: list[str] = common.named_regions()
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    both_strands: bool = option("mean of both strands; otherwise the strand that a region names, else +", False)
    window: int | None = common.reading_window()
    overlap: int | None = common.reading_overlap()
    hide_every: int = option("one base in so many is hidden in each pass of such a model", 7, at_least=2)
    batch_size: int = option("passes at once of such a model", 16, at_least=1)
    rna: bool = option("read U in the reference as T", False)
    shard_size: int = common.shard_size("regions, fewer of long ones,")
    device: Device = option("where to run", "auto")
    devices: int | Literal["auto"] = common.devices()
    resume: bool = common.resume()
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.pipelines.shards import check_way

    output = config.output  # before what takes seconds to import
    check_way(output, [output], resume=config.resume, force=config.force, devices=config.devices)

    from genomamba.data.tracks import check_track_format
    from genomamba.interop.loading import load_any_model
    from genomamba.model.backbone import CausalLM
    from genomamba.pipelines.chosen_regions import chosen_regions, say_skipped, side_by_side
    from genomamba.pipelines.likelihood_shards import Job, facts, language_model, write_bits
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.reading_windows import reading_windows
    from genomamba.pipelines.sharded import each_device
    from genomamba.tasks.device import resolve_device

    form = check_track_format(config.output)
    devices = each_device(config.devices, resolve_device(config.device))
    config = replace(config, model=model_folder(config.model))
    reference = open_reference(config.reference, rna=config.rna)
    model = language_model(load_any_model(config.model), config.model)
    windows = reading_windows(config, is_causal=isinstance(model, CausalLM))
    placed = chosen_regions(config, reference)
    if form == "tsv":
        intervals = [region.interval for region in placed if region.interval is not None]
    else:
        intervals = side_by_side(placed, reference, config.regions)
    job = Job(config, model, reference, intervals, windows, devices)
    count = write_bits(job, partial(facts, job, placed))
    say_skipped(placed, config.regions or config.reference)
    total = f"{count.bits / count.bases:.4f} bits per base over {count.bases:,} bases" if count.bases else "no base"
    print(f"{len(placed)} regions: {total}", file=sys.stderr)
    return 0
