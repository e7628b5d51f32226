"""Bits per base along whole contigs or regions under a language model, as a bigWig, bedGraph or table.

Each region is read from end to end in constant memory. A causal model carries its state, so that a base is predicted
from all of the region before it. A model that looks both ways reads overlapping windows and sees every base hidden
once, some others being hidden with it. What is no base, and a causal model's first, has no value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import torch

    from genomamba.data.references import Genome
    from genomamba.data.tracks import TrackPiece
    from genomamba.scoring.likelihood import StrandBits


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that is to be measured", short="-r", reads="file")
    model: str = common.any_model_or_shipped("language model")
    output: str = option(
        ".bw, .bedgraph, .tsv, the last two also with .gz; - is bedGraph on stdout",
        "-",
        short="-o",
        writes="file",
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
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.data.tracks import table_lines, track_format, write_text, write_track
    from genomamba.files import refuse_existing
    from genomamba.pipelines.chosen_regions import chosen_regions, say_skipped, side_by_side
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.progress import progress_bar
    from genomamba.scoring.likelihood import LikelihoodTrack
    from genomamba.tasks.device import resolve_device

    form = track_format(config.output)
    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    config = replace(config, model=model_folder(config.model))
    reference = open_reference(config.reference, rna=config.rna)
    bits = strand_bits(config, reference, device)
    placed = chosen_regions(config, reference)
    if form == "tsv":
        intervals = [region.interval for region in placed if region.interval is not None]
    else:
        intervals = side_by_side(placed, reference, config.regions)
    count = Count()
    with progress_bar() as bar:
        strands = 2 if config.both_strands else 1
        task = bar.add_task("reading", total=strands * sum(each.length for each in intervals), note="bases")
        track = LikelihoodTrack(bits, both_strands=config.both_strands, progress=partial(bar.advance, task))
        pieces = count(piece for interval in intervals for piece in track(interval))
        if form == "tsv":
            write_text(config.output, table_lines(pieces, reference, "bits"))
        else:
            write_track(config.output, reference.contigs, pieces)
    say_skipped(placed, config.regions or config.reference)
    total = f"{count.bits / count.bases:.4f} bits per base over {count.bases:,} bases" if count.bases else "no base"
    print(f"{len(placed)} regions: {total}", file=sys.stderr)
    return 0


class Count:
    """Bases with a value, and the sum of the values, of pieces that pass through."""

    bases = 0
    bits = 0.0

    def __call__(self, pieces: Iterable[TrackPiece]) -> Iterator[TrackPiece]:
        import numpy as np

        for piece in pieces:
            self.bases += int(np.count_nonzero(~np.isnan(piece.values)))
            self.bits += float(np.nansum(piece.values, dtype=np.float64))
            yield piece


def strand_bits(config: Config, reference: Genome, device: torch.device) -> StrandBits:
    """What gives the bits of an interval along its strand.

    Raises:
        CheckpointError: no language model.
        ConfigError: windows that do not overlap as asked.
    """
    from genomamba.data.datasets import WindowReader
    from genomamba.errors import CheckpointError
    from genomamba.interop.loading import load_any_model
    from genomamba.model.backbone import CausalLM, MaskedLM
    from genomamba.pipelines.reading_windows import reading_windows
    from genomamba.scoring.masked_bits import MaskedBits
    from genomamba.scoring.streaming import stream_bits

    model = load_any_model(config.model)
    reader = WindowReader(reference, softmask_weight=1.0)
    if isinstance(model, CausalLM):
        segment = reading_windows(config, is_causal=True).window
        return partial(stream_bits, model.to(device), reader, segment=segment, device=device)
    if not isinstance(model, MaskedLM):
        raise CheckpointError("it is no language model", "give a run folder of `pretrain`", file=config.model)
    window, overlap = reading_windows(config, is_causal=False)
    return MaskedBits(
        model.to(device),
        reader,
        window=window,
        overlap=overlap,
        hide_every=config.hide_every,
        batch_size=config.batch_size,
        device=device,
    )
