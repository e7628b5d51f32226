"""The context model that stands beside a language model's figure: same training regions, same validation regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genomamba.data.references import Genome, References
from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.genome.alphabet import Ids
from genomamba.genome.interval import Interval
from genomamba.pipelines.bed_regions import place_bed
from genomamba.pipelines.model_provenance import read_provenance
from genomamba.pipelines.open_reference import open_reference
from genomamba.scoring.context_model import ContextModel, choose_context_model

TRAINING, VALIDATION = "training.bed", "valid.bed"


def write_regions(folder: Path, training: Sequence[Interval], valid: Sequence[Interval]) -> None:
    """The regions of a run, as BED."""
    for name, regions in ((TRAINING, training), (VALIDATION, valid)):
        with whole_file(folder / name) as path:
            path.write_text("".join(f"{r.contig}\t{r.start}\t{r.end}\n" for r in regions), encoding="utf-8")


def context_baseline(folder: str) -> tuple[ContextModel, float]:
    """Counts the regions that the model in ``folder`` was trained on; its validation regions choose the order.

    Raises:
        CheckpointError: the run has no validation regions, or its genome is not what it was.
    """
    made = read_provenance(folder)
    paths = made["configuration"].get("reference")
    if not isinstance(paths, list) or not (Path(folder) / VALIDATION).is_file():
        raise CheckpointError(f"it does not name its genome and {TRAINING}", "train it again", file=folder)
    genome = References([open_reference(path, rna=made["configuration"]["rna"]) for path in paths])
    if genome.fingerprint != made["reference"]["fingerprint"]:
        raise CheckpointError(
            "the genome that it was trained on has changed since", "restore the file", file=folder, field="reference"
        )
    if not (Path(folder) / VALIDATION).stat().st_size:
        raise CheckpointError("the run held out nothing that could choose an order", "give it --valid", file=folder)
    training, valid = (_pieces(Path(folder) / name, genome) for name in (TRAINING, VALIDATION))
    return choose_context_model(training, valid)


def describe(model: ContextModel, genome: Genome, regions: Sequence[Interval]) -> str:
    """Its figures on ``regions``: with the counts of training alone, and counting on while it codes them."""
    pieces = [genome.ids(region) for region in regions]
    lines = []
    for name, measure in (("frozen", model.bits), ("adaptive", model.adaptive_bits)):
        found = [measure(ids) for ids in pieces]
        bases = sum(each.bases for each in found)
        figure = f"{sum(each.bits for each in found) / bases:.4f}" if bases else "NA"
        lines.append(f"order-{model.order} context model, {name}: {figure} bits per base over {bases:,} bases")
    return "\n".join(lines)


def _pieces(path: Path, genome: Genome) -> list[Ids]:
    placed = place_bed(str(path), genome, edge="error", contig_aliases="none")
    return [genome.ids(region.interval) for region in placed if region.interval is not None]
