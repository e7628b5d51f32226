"""Apply a model to sequences: classes or values of whole ones, or tracks along them.

A model of whole sequences (`finetune sequences`) reads each record or region as one sequence, and answers in a table:
every record keeps its row, in order; one without a base has a status that says why, and no answer. A model of tracks
gives a value per base; each track is written to a file of its own. Until a file is whole, what is done of it is kept
beside it in OUTPUT.shards; --resume goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.tasks.config import Device


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that is to be read", short="-r", reads="file")
    model: str = option("run folder of `finetune sequences` or `finetune tracks`", short="-m", reads="model")
    output: str = option(
        "table: .tsv, .tsv.gz or .parquet, - is stdout; tracks: .bw or .bedgraph, and with several .NAME before that",
        "-",
        short="-o",
        writes="own",
        stdout=True,
    )
    regions: str | None = common.bed_of_regions("every record whole")
    region: list[str] = common.named_regions()
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    batch_size: int | Literal["auto"] = common.batch_size("sequences")
    window: int | None = common.reading_window("of tracks, ")
    overlap: int | None = common.reading_overlap("of tracks, ")
    rna: bool = option("read U in the reference as T", False)
    shard_size: int = common.shard_size("sequences or regions")
    device: Device = option("where to run", "auto")
    devices: int | Literal["auto"] = common.devices()
    resume: bool = common.resume()
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    check_output(config)  # before what takes seconds to import

    from genomamba.model.folder import load_model
    from genomamba.model.sequence_heads import SequenceModel, TokenModel
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.sharded import each_device
    from genomamba.tasks.device import resolve_device

    device = resolve_device(config.device)
    devices = each_device(config.devices, device)
    model = load_model(config.model)
    reference = open_reference(config.reference, rna=config.rna)
    if isinstance(model, TokenModel):
        from genomamba.pipelines.predict_tracks import predict_to_tracks

        return predict_to_tracks(config, model, reference, devices)
    assert isinstance(model, SequenceModel)
    from genomamba.pipelines.predict_table import answer

    return answer(config, model, reference, devices)


def check_output(config: Config) -> None:
    """Whether the model answers, and its answers may be written there; raises CheckpointError or OutputError."""
    from genomamba.model.folder_files import SEQUENCE, TOKEN, track_names
    from genomamba.pipelines.model_kind import check_head

    made = check_head(config.model, SEQUENCE, TOKEN)
    if made["task"] == TOKEN:
        check_tracks(config, track_names(made, config.model))
    else:
        check_table(config)


def check_table(config: Config) -> None:
    """Raises OutputError where there can be no table, and ConfigError for options that have no say in one."""
    from genomamba.errors import OutputError
    from genomamba.pipelines.option_values import refuse_unread

    for name in ("window", "overlap"):
        refuse_unread(config, name, "a model of tracks", typed=())

    if config.output != "-" and not config.output.lower().endswith((".tsv", ".tsv.gz", ".parquet")):
        raise OutputError(
            "the extension names no format of tables", "use .tsv, .tsv.gz or .parquet", file=config.output
        )
    check_writes(config, [config.output])


def check_tracks(config: Config, tracks: Sequence[str]) -> None:
    """Raises OutputError where the tracks cannot be written.

    And ConfigError without the library for it, and for options that have no say in tracks.
    """
    from genomamba.data.tracks import check_track_format, track_paths
    from genomamba.errors import OutputError
    from genomamba.pipelines.option_values import refuse_unread

    refuse_unread(config, "batch_size", "a model of whole sequences", typed=())

    if check_track_format(config.output) == "tsv":
        raise OutputError("the extension names no format of tracks", "use .bw or .bedgraph", file=config.output)
    if config.output == "-" and len(tracks) > 1:
        raise OutputError(f"the model has {len(tracks)} tracks", "give a file", file=config.output)
    check_writes(config, track_paths(config.output, tracks))


def check_writes(config: Config, outputs: Sequence[str]) -> None:
    """Raises OutputError or ConfigError where those may not be written in the way that is asked for."""
    from genomamba.pipelines.paths import refuse_shared
    from genomamba.pipelines.shards import check_way

    for path in outputs:  # each track has a name of its own
        refuse_shared(replace(config, output=path))
    check_way(config.output, outputs, resume=config.resume, force=config.force, devices=config.devices)
