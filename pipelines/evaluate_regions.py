"""Bits per base of the regions in a BED file under a language model.

One row per record, in order; a record that cannot be measured keeps its row, with the reason. Each region is read in
windows side by side, none of which sees another, as in training; or with --stream from end to end, the state carried.
With --context-model two more columns have the figures of an order-k context model (order_11_frozen, say).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

COLUMNS = ("contig", "start", "end", "name", "bases", "bits_per_base", "status")


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the regions stand on", short="-r", reads="file")
    regions: str = option("BED file, plain, gzip or bgzip", short="-b", reads="file")
    model: str = common.model_or_shipped("run folder of `pretrain`", "model")
    output: str = option(
        "TSV to write, by bgzip if .tsv.gz; - is stdout",
        "-",
        short="-o",
        writes="file",
        stdout=True,
        formats=common.TSV,
    )
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    window: int | None = option("bases per window; the model's own when not given", None, at_least=2)
    batch_size: int = option("windows per forward pass", 16, at_least=1)
    stream: bool = option("read each region whole, carrying the model's state from window to window", False)
    context_model: bool = option("add what an order-k context model of the same training regions reaches", False)
    leak_check: bool = option("also count the 31-mers that the regions share with the training regions", False)
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.pipelines.model_kind import check_causal

    check_causal(config.model)  # before what takes seconds to import

    from genomamba.data.tracks import write_text
    from genomamba.files import refuse_existing
    from genomamba.model.backbone import CausalLM
    from genomamba.model.folder import load_model
    from genomamba.pipelines.bed_regions import place_bed, skipped
    from genomamba.pipelines.context_baseline import (
        RegionBits,
        context_baseline,
        describe,
        measure,
        trained_like,
        trained_on,
    )
    from genomamba.pipelines.model_provenance import model_window
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.progress import progress_bar
    from genomamba.scoring.regions import RegionScorer
    from genomamba.scoring.streaming import StreamingScorer
    from genomamba.tasks.device import resolve_device

    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    config = replace(config, model=model_folder(config.model))
    model = load_model(config.model)
    assert isinstance(model, CausalLM)
    window = config.window or model_window(config.model)
    reference = open_reference(config.reference, rna=config.rna)
    placed = place_bed(config.regions, reference, edge=config.edge, contig_aliases=config.contig_aliases)
    scorer: RegionScorer | StreamingScorer
    if config.stream:
        scorer = StreamingScorer(model, reference, segment=window, device=device)
    else:
        scorer = RegionScorer(model, reference, window=window, batch_size=config.batch_size, device=device)
    if config.context_model:
        print("counting the contexts of the training regions, which takes minutes on a large genome", file=sys.stderr)
    baseline = context_baseline(config.model)[0] if config.context_model else None
    inside = [region.interval for region in placed if region.interval is not None]
    leaks = [trained_like(config.model, reference, inside)] if config.leak_check else []
    with progress_bar() as bar:
        results = iter(list(bar.track(scorer(inside), len(inside), task_id=bar.add_task("measuring", note="regions"))))
    counted = [] if baseline is None else measure(baseline, reference, inside)
    beside = iter(counted)
    more = [] if baseline is None else [f"order_{baseline.order}_{name}" for name in RegionBits._fields]
    rows, bases, bits = ["\t".join((*COLUMNS, *more))], 0, 0.0
    for region in placed:
        interval, name = region.record.interval, region.record.name
        figures, others = ("0", "NA", region.skip or ""), ["NA" for _ in more]
        if region.interval is not None:
            result = next(results)
            bases, bits = bases + result.bases, bits + result.bits
            status = "EDGE" if region.pad_low or region.pad_high else "OK"
            # A region without a base to predict (all N, or one base) has no figure, not a perfect one.
            figures = (str(result.bases), f"{result.bits / result.bases:.4f}" if result.bases else "NA", status)
            if not result.bases:
                figures = ("0", "NA", "SKIP_NO_BASES")
            others = next(beside).cells if more else []
        rows.append("\t".join((interval.contig, str(interval.start), str(interval.end), name, *figures, *others)))
    write_text(config.output, (f"{row}\n" for row in rows))
    for reason, count in skipped(placed).items():
        print(f"{config.regions}: {reason} {count}", file=sys.stderr)
    total = f"{bits / bases:.4f} bits per base over {bases:,} bases" if bases else "no base to predict"
    how = "streamed" if config.stream else f"in windows of {window}"
    print(f"{len(placed)} regions: {total}, {how}", file=sys.stderr)
    print(trained_on(config.model, inside), *leaks, sep="\n", file=sys.stderr)
    if baseline is not None:
        print(describe(baseline, counted), file=sys.stderr)
    return 0
