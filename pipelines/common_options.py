"""Options that several commands have in common, in the same words. Needs no parser and no torch, as `option`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from genomamba.errors import ConfigError
from genomamba.model.pretrained import SHIPPED
from genomamba.pipelines.option import Reads, option
from genomamba.pipelines.shipped import WHEN_NOT_GIVEN
from genomamba.tasks.config import Method

ContigAliases = Literal["none", "auto"]

#: of outputs; `data.tracks.write_text` compresses what ends in .gz
TSV = (".tsv", ".tsv.gz")
JSON = (".json",)

#: what may change when fine-tuning goes on: none of it has a say in the training, but that a GPU rounds otherwise
FREE_OF_FINETUNING = frozenset({"output", "workers", "device", "force", "resume", "checkpoint_every"})


def resume_training() -> Any:
    """``--resume`` of fine-tuning."""
    return option(
        "go on from the last good checkpoint of the run folder, on the same kind of device to the same bits", False
    )


def checkpoint_every() -> Any:
    """``--checkpoint-every`` of fine-tuning."""
    return option("steps between checkpoints; when not given, one after each epoch", None, at_least=1)


def model_or_shipped(what: str, reads: Reads) -> Any:
    """``-m``; the model that ships when not given."""
    return option(f"{what}; {WHEN_NOT_GIVEN}", SHIPPED, short="-m", reads=reads)


def any_model_or_shipped(kind: str) -> Any:
    """The same, where it may be anyone's."""
    return model_or_shipped(f"folder of a {kind}, or a checkpoint that `import` reads", "checkpoint")


def bed_of_regions(otherwise: str) -> Any:
    """``-b``, of `chosen_regions`."""
    return option(f"BED file of regions; {otherwise} when not given", None, short="-b", reads="file")


def named_regions() -> Any:
    """``--region``, of `chosen_regions`."""
    return option("regions such as chr1:1001-2000, or contigs", [])


def edge() -> Any:
    return option("what a region gets that passes its contig's end", "error")


def contig_aliases(only_where: str = "") -> Any:
    return option(f"auto: match 1 with chr1 and MT with chrM{only_where}", "none")


def max_mismatch_frac() -> Any:
    return option("refuse the input when REF disagrees in a larger share of alleles", 0.05, at_least=0, at_most=1)


def other_methods(method: Method) -> Iterator[tuple[str, str]]:
    """The groups of options of methods of fine-tuning that are not used, and what each counts with."""
    yield from ((name, f"--method {name}") for name in ("lora", "probe") if name != method)


def other_starts(model: str | None) -> Iterator[tuple[str, str]]:
    """Options that say how a pretrained model is trained on, where none is given, and what they count with."""
    if model is None:
        yield "dropout", "-m (from scratch, --architecture.dropout)"


def check_below_one(config: object, *fields: str) -> None:
    """Raises ConfigError for one of these options that is 1 or more."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and value >= 1:
            raise ConfigError("it must be below 1", "lower it", field=field, value=value)


def seed(of: str) -> Any:
    """Of 32 bits, as all that draws numbers takes it."""
    return option(f"of {of}", 0, at_least=0, at_most=2**32 - 1)


def reading_window(of: str = "") -> Any:
    """``--window`` of `reading_windows`."""
    help = "bases per forward pass: of no consequence to a causal model; of others, the model's own when not given"
    return option(f"{of}{help}", None, at_least=2)


def reading_overlap(of: str = "") -> Any:
    """``--overlap`` of `reading_windows`."""
    help = "bases that windows of a model that looks both ways share; a quarter when not given"
    return option(f"{of}{help}", None, at_least=0)


def batch_size(of: str) -> Any:
    """``--batch-size`` of commands that plan it."""
    return option(
        f"{of} per forward pass; auto: as many as are likely to fit, halved when they do not", "auto", at_least=1
    )


def shard_size(of: str) -> Any:
    """``--shard-size``, of `sharded`."""
    return option(f"{of} per shard: what a run that is killed may lose", 1024, at_least=1)


def devices() -> Any:
    """``--devices``, of `sharded.each_device`."""
    return option("GPUs, or processes on a CPU, each of which works out shards; auto: every GPU", 1, at_least=1)


def resume() -> Any:
    """``--resume``, of `shards`."""
    return option(
        "go on with what a stopped run left; the output is the same to the byte, but for rounding where batches had to "
        "be halved in one run and not in the other. One that is finished is refused as existing, unless with --force "
        "instead",
        False,
    )
