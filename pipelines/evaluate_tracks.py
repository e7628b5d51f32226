"""Measure a model of tracks on bigWigs: Pearson's r and the loss, beside those of predicting the training mean.

The regions are the test regions of its training, or those of a BED file, which may hold no base that training or
validation had. Figures are over all bases that count, of what `genomamba predict` writes; NA where not defined.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.json_shape import EVERY, NUMBER
from genomamba.pipelines.option import option
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    from genomamba.data.reference import Reference
    from genomamba.genome.interval import Interval


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the tracks stand on", short="-r", reads="file")
    tracks: list[str] = option("bigWig files of the model's tracks, or of some, each FILE or NAME=FILE")
    model: str = option("run folder of `finetune tracks`", short="-m", reads="model")
    output: str | None = option("JSON file for the figures", None, short="-o", writes="file", formats=common.JSON)
    regions: str | None = common.bed_of_regions("the test regions of training")
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases(" where lengths agree")
    missing: Literal["skip", "zero"] | None = option(
        "bases that a file has no value of: not in the figures, or 0; as in training when not given", None
    )
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


# what provenance.json must say of the model; of its tracks, those that are measured
MADE = {
    "reference": {"fingerprint": str},
    "loss": str,
    "missing": str,
    "window": int,
    "held_out": {EVERY: [str]},
}


def run(config: Config) -> int:
    from genomamba.model.folder_files import TOKEN, track_names
    from genomamba.pipelines.model_kind import check_head
    from genomamba.pipelines.track_names import named_tracks

    made_of = check_head(config.model, TOKEN)  # before what takes seconds to import
    files = named_tracks(config.tracks)
    check_names(list(files), track_names(made_of, config.model))

    import numpy as np

    from genomamba.files import refuse_existing, whole_file
    from genomamba.model.folder import load_model, weights_fingerprint
    from genomamba.model.sequence_heads import TokenModel
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.printed_tables import print_tables
    from genomamba.pipelines.track_input import open_tracks, read_through
    from genomamba.pipelines.track_measures import figures_table, measure
    from genomamba.tasks.device import resolve_device

    if config.output is not None:
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    made = what_made(config.model, list(files))
    model = load_model(config.model)
    assert isinstance(model, TokenModel)
    reference = open_reference(config.reference, rna=config.rna)
    regions = measured_regions(config, made, reference)
    reader = open_tracks(
        files, reference, contig_aliases=config.contig_aliases, missing=config.missing or made["missing"]
    )
    read_through(reader, {"test": regions}, made["window"], counts=made["loss"] == "poisson")
    figures = measure(
        *(model, reader, {"test": regions}),
        mean=np.array([made["tracks"][name]["mean"] for name in files]),
        window=made["window"],
        device=device,
        tracks=list(files),
    )
    evaluation: dict[str, Any] = {
        "model": config.model,
        "weights": weights_fingerprint(config.model),
        "tracks": files,
        "regions": [str(region) for region in regions],
        "loss": made["loss"],
        "missing": reader.missing,
        "figures": figures["test"],
    }
    if config.output is not None:
        with whole_file(config.output) as path:
            path.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    print_tables([figures_table(figures, made["loss"])])
    return 0


def check_names(given: Sequence[str], known: Sequence[str]) -> None:
    """Raises ConfigError for a name that is none of the model's tracks."""
    from genomamba.errors import ConfigError

    for name in given:
        if name not in known:
            raise ConfigError(
                "the model has no track of that name",
                f"write NAME=FILE; it has {', '.join(known)}",
                field="tracks",
                value=name,
            )


def what_made(folder: str, tracks: Sequence[str]) -> dict[str, Any]:
    """What the provenance says of a model and of those of its tracks that are measured.

    Raises:
        CheckpointError: it lacks some of that, or says what cannot be.
    """
    from pathlib import Path

    from genomamba.errors import CheckpointError
    from genomamba.pipelines.model_provenance import PROVENANCE, REMEDY, read_provenance
    from genomamba.pipelines.track_measures import UNITS

    made = read_provenance(folder, {**MADE, "tracks": {name: {"mean": NUMBER} for name in tracks}})
    for field, is_known in (
        ("loss", made["loss"] in UNITS),
        ("missing", made["missing"] in ("skip", "zero")),
        ("window", made["window"] > 0),
    ):
        if not is_known:
            raise CheckpointError(
                "it cannot be that", REMEDY, file=Path(folder) / PROVENANCE, field=field, value=made[field]
            )
    return made


def measured_regions(config: Config, made: dict[str, Any], reference: Reference) -> list[Interval]:
    """The sequenced parts of the regions to be measured, none of which was seen.

    Raises:
        ConfigError: none are named, and training held none out, or was on another genome.
        RegionError: see `place_bed`; or a base of them was in training or validation.
    """
    from pathlib import Path

    from genomamba.data.bed import read_bed
    from genomamba.data.splits import shared_bases
    from genomamba.data.windows import merged, sequenced_regions
    from genomamba.errors import ConfigError, RegionError
    from genomamba.genome.interval import parse_region
    from genomamba.pipelines.bed_regions import place_bed
    from genomamba.pipelines.chosen_regions import say_skipped
    from genomamba.pipelines.context_baseline import TRAINING, VALIDATION, trained_on

    is_same = made["reference"]["fingerprint"] == reference.fingerprint
    if config.regions is None:
        held_out = made["held_out"].get("test", [])
        if not held_out or not is_same:
            problem = "training held no test regions out" if is_same else "the model was trained on another genome"
            raise ConfigError(problem, "name regions by a BED file", field="regions")
        return [parse_region(text, reference.contigs) for text in held_out]
    placed = place_bed(config.regions, reference, edge=config.edge, contig_aliases=config.contig_aliases)
    say_skipped(placed, config.regions)
    regions = sequenced_regions(reference, merged(each.interval for each in placed if each.interval is not None))
    if not regions:
        raise RegionError("no region has a sequence", "give others", file=config.regions)
    if not is_same:
        print(f"the genome is not that of training; {trained_on(config.model, regions)}", file=sys.stderr)
        return regions
    for name in (TRAINING, VALIDATION):
        path = Path(config.model) / name
        if shared := shared_bases([record.interval for record in read_bed(path)], regions):
            raise RegionError(
                f"{shared:,} of their bases are in {path}, which the model has seen", "name others", file=config.regions
            )
    return regions
