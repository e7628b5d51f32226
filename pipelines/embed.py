"""Hidden states of a model for contigs or regions: pooled into one vector each, or of every base.

The input's records keep their rows, in order; one without a base has a status that says why, and no vector. With
--pool none there is a row per base of every region that has any (Parquet), or an array per region (.npz, by number).
Until the file is whole, what is done of it is kept beside it in OUTPUT.shards; --resume goes on from there.
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
    reference: str = option("FASTA that is to be read", short="-r", reads="file")
    output: str = option(".parquet or .npz", short="-o", writes="own")
    model: str = common.any_model_or_shipped("model")
    pool: Literal["mean", "max", "last", "none"] = option(
        "how a region's bases become one vector; none: a vector per base", "mean"
    )
    regions: str | None = common.bed_of_regions("every record whole")
    region: list[str] = common.named_regions()
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    both_strands: bool = option("mean of both strands; otherwise the strand that a region names, else +", False)
    window: int | None = common.reading_window()
    overlap: int | None = common.reading_overlap()
    batch_size: int | Literal["auto"] = common.batch_size("regions that fit a window")
    rna: bool = option("read U in the reference as T", False)
    shard_size: int = common.shard_size("regions")
    device: Device = option("where to run", "auto")
    devices: int | Literal["auto"] = common.devices()
    resume: bool = common.resume()
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.pipelines.shards import check_place

    check_place(config.output, [config.output], resume=config.resume, force=config.force)

    from genomamba.data.vectors import vector_format
    from genomamba.interop.loading import load_any_model
    from genomamba.pipelines.chosen_regions import chosen_regions
    from genomamba.pipelines.embed_shards import EmbedRecipe, Job, facts, write_bases, write_pooled
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.reading_windows import reading_windows
    from genomamba.pipelines.region_rows import region_rows, say_statuses
    from genomamba.pipelines.sharded import each_device
    from genomamba.tasks.device import resolve_device

    vector_format(config.output)
    devices = each_device(config.devices, resolve_device(config.device))
    config = replace(config, model=model_folder(config.model))
    reference = open_reference(config.reference, rna=config.rna)
    model = load_any_model(config.model)
    windows = reading_windows(config, is_causal=model.backbone.config.is_causal)
    placed = chosen_regions(config, reference)
    rows = region_rows(placed, reference)
    job = Job(config, model, reference, rows, EmbedRecipe.of(config, windows), devices)
    write = write_bases if config.pool == "none" else write_pooled
    width = write(job, partial(facts, job, placed))
    print(f"{config.output}: {len(rows):,} regions, {width} numbers per vector", file=sys.stderr)
    say_statuses(rows)
    return 0
