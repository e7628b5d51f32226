"""The context model that stands beside a language model's figure: same training regions, same validation regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genomamba.data.bed import read_bed
from genomamba.data.references import Genome, References
from genomamba.data.splits import K, contained_share, shared_bases
from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.genome.alphabet import Ids
from genomamba.genome.interval import Interval
from genomamba.model.folder import PROVENANCE
from genomamba.pipelines.bed_regions import place_bed
from genomamba.pipelines.json_shape import check_shape
from genomamba.pipelines.model_provenance import REMEDY, read_provenance
from genomamba.pipelines.open_reference import open_reference
from genomamba.scoring.context_model import ContextBits, ContextModel, choose_context_model

TRAINING, VALIDATION = "training.bed", "valid.bed"
MADE = {"configuration": {"reference": [str], "rna": bool}, "reference": {"fingerprint": str}}


def write_regions(folder: Path, training: Sequence[Interval], valid: Sequence[Interval]) -> None:
    """The regions of a run, as BED."""
    for name, regions in ((TRAINING, training), (VALIDATION, valid)):
        with whole_file(folder / name) as path:
            path.write_text("".join(f"{r.contig}\t{r.start}\t{r.end}\n" for r in regions), encoding="utf-8")


def trained_on(folder: str, regions: Sequence[Interval]) -> str:
    """How much of ``regions`` the model in ``folder`` was trained on, in words; contigs are known by their names."""
    path = Path(folder) / TRAINING
    if not path.is_file():
        return f"{folder} has no {TRAINING}: whether it was trained on these bases is not known"
    shared = shared_bases([record.interval for record in read_bed(path)], regions)
    return f"{shared:,} of the regions' bases are in {path}, what it was trained on, if contigs of one name are one"


def trained_like(folder: str, genome: Genome, regions: Sequence[Interval]) -> str:
    """How much of the sequence of ``regions`` the model in ``folder`` was trained on, wherever it stood, in words.

    Raises:
        CheckpointError: see `training_genome`.
    """
    trained = training_genome(folder)
    share = contained_share(genome, regions, trained, _regions(Path(folder) / TRAINING, trained))
    if share is None:
        return f"no {K}-mer of the regions could be looked for in training sequence"
    return f"{100 * share:.2f} % of the regions' {K}-mers occur in training sequence (both strands)"


def context_baseline(folder: str) -> tuple[ContextModel, float]:
    """Counts the regions that the model in ``folder`` was trained on; its validation regions choose the order.

    Raises:
        CheckpointError: the run has no validation regions, or its genome is not what it was.
    """
    genome = training_genome(folder)
    if not (Path(folder) / VALIDATION).stat().st_size:
        raise CheckpointError("the run held out nothing that could choose an order", "give it --valid", file=folder)
    training, valid = (_pieces(Path(folder) / name, genome) for name in (TRAINING, VALIDATION))
    return choose_context_model(training, valid)


def training_genome(folder: str) -> References:
    """The genome that the model in ``folder`` was trained on, as its run's regions name it.

    Raises:
        CheckpointError: the run does not say, or the genome is not what it was.
    """
    made = read_provenance(folder)  # of the model that ships, with less in it
    if "shipped" in made:
        raise CheckpointError(
            "the genomes that it was trained on do not come with it", "give -m a run folder of yours", file=folder
        )
    check_shape(made, MADE, Path(folder) / PROVENANCE, REMEDY, error=CheckpointError)
    for name in (TRAINING, VALIDATION):
        if not (Path(folder) / name).is_file():
            raise CheckpointError(f"it has no {name}", "train it again", file=folder)
    genome = References(
        [open_reference(path, rna=made["configuration"]["rna"]) for path in made["configuration"]["reference"]]
    )
    if genome.fingerprint != made["reference"]["fingerprint"]:
        raise CheckpointError(
            "the genome that it was trained on has changed since", "restore the file", file=folder, field="reference"
        )
    return genome


class RegionBits(NamedTuple):
    """A context model's figures on a region."""

    frozen: ContextBits  # with the counts of training alone
    adaptive: ContextBits  # counting on while it codes the regions

    @property
    def cells(self) -> list[str]:
        """Bits per base; NA where there is no base to predict."""
        return [_per_base([part]) for part in self]


def measure(model: ContextModel, genome: Genome, regions: Sequence[Interval]) -> list[RegionBits]:
    """Its figures on ``regions``, in order."""
    pieces = [genome.ids(region) for region in regions]
    frozen = [model.bits(ids) for ids in pieces]  # first: the others change the counts
    return [RegionBits(*both) for both in zip(frozen, map(model.adaptive_bits, pieces), strict=True)]


def describe(model: ContextModel, found: Sequence[RegionBits]) -> str:
    """The figures over all regions."""
    lines = []
    for name, parts in zip(RegionBits._fields, zip(*found, strict=True) if found else ((), ()), strict=True):
        bases = sum(part.bases for part in parts)
        lines.append(
            f"order-{model.order} context model, {name}: {_per_base(parts)} bits per base over {bases:,} bases"
        )
    return "\n".join(lines)


def _per_base(parts: Sequence[ContextBits]) -> str:
    bases = sum(part.bases for part in parts)
    return f"{sum(part.bits for part in parts) / bases:.4f}" if bases else "NA"


def _pieces(path: Path, genome: Genome) -> list[Ids]:
    return [genome.ids(region) for region in _regions(path, genome)]


def _regions(path: Path, genome: Genome) -> list[Interval]:
    placed = place_bed(str(path), genome, edge="error", contig_aliases="none")
    return [region.interval for region in placed if region.interval is not None]
