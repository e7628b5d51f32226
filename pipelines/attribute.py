"""Score every substitution in a region (in-silico saturation mutagenesis) as a table, a logo and a heat map.

Under a language model a score is log p(alternative) - log p(reference) in nats: of a causal one over the region and its
context, reading once what substitutions share; of one that looks both ways, of the base itself when it is hidden.
Under a variant classifier it is the calibrated probability. Both strands are averaged. A model of whole sequences reads
the region alone, and a score is the change of a class's log-odds in nats, or of the value. The table's last column is
named by what it holds: llr_nats, p_positive, change_of_log_odds_nats_CLASS or change_of_value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import numpy as np
    import torch

    from genomamba.data.reference import Reference
    from genomamba.genome.alphabet import Ids
    from genomamba.genome.interval import Interval
    from genomamba.model.sequence_heads import SequenceModel

COLUMNS = ("contig", "pos", "ref", "alt")  # and the score, under its own name
TOKENS = {"cpu": 1 << 16, "cuda": 1 << 19}  # per forward pass


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the region stands on", short="-r", reads="file")
    region: str = option("region such as chr1:1001-1200")
    model: str = common.any_model_or_shipped("language model or classifier")
    output: str = option(
        "TSV to write, a row per substitution, by bgzip if .tsv.gz; - is stdout",
        "-",
        short="-o",
        writes="file",
        stdout=True,
        formats=common.TSV,
    )
    logo: str | None = option(
        "picture of the sequence, each base as tall as it matters: .png, .svg or .pdf", None, writes="file"
    )
    heatmap: str | None = option("picture of every substitution's score: .png, .svg or .pdf", None, writes="file")
    window: int | None = option(
        "bases of context: half of them on each side of a causal model's region, or all around each base for other "
        "models; the model's own when not given",
        None,
        at_least=2,
    )
    horizon: int | None = option(
        "of a causal model, bases from a substitution on that count; all when not given", None, at_least=1
    )
    target: str | None = option(
        "class whose log-odds are meant; when not given, the second of two, or the one called for the region", None
    )
    batch_size: int = option("substitutions per forward pass", 96, at_least=1)
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace existing outputs", False)


class Scorer(NamedTuple):
    """What scores the substitutions of one kind of model."""

    score: Callable[[Callable[[int], object]], np.ndarray]  # progress in bases → (L, 4), by A, C, G, T
    passes: int  # how often each base is counted as progress
    column: str  # the scores' name in the table
    unit: str  # the same in words, in pictures
    worth: str  # of a base, what its substitutions cost, as the logo shows it
    is_change: bool  # 0 means none; otherwise scores are probabilities


def run(config: Config) -> int:
    from genomamba.data.tracks import write_text
    from genomamba.files import refuse_existing
    from genomamba.genome.interval import parse_region
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.progress import progress_bar
    from genomamba.scoring.mutagenesis import substitutions
    from genomamba.tasks.device import resolve_device

    for path in (config.output, config.logo, config.heatmap):
        if path is not None and path != "-":
            refuse_existing(path, force=config.force)
    device = resolve_device(config.device)
    config = replace(config, model=model_folder(config.model))
    reference = open_reference(config.reference, rna=config.rna)
    region = parse_region(config.region, reference.contigs)
    sequence = reference.sequence(region.contig, region.start, region.end)
    check_pictures(config, region)
    scorer = make_scorer(config, reference, region, sequence, device)
    with progress_bar() as bar:
        task = bar.add_task("mutating", total=scorer.passes * region.length, note="bases")
        scores = scorer.score(partial(bar.advance, task))
    rows = ["\t".join((*COLUMNS, scorer.column)) + "\n"]
    for at, ref, alt in substitutions(sequence):
        rows.append(f"{region.contig}\t{region.start + at + 1}\t{ref}\t{alt}\t{scores[at, 'ACGT'.index(alt)]:.6g}\n")
    with ExitStack() as together:  # one that fails leaves none in place
        draw(config, region, sequence, scores, scorer, together)
        if config.output != "-":
            write_text(config.output, rows)
    if config.output == "-":
        write_text(config.output, rows)
    print(f"{region}: {len(rows) - 1:,} substitutions scored", file=sys.stderr)
    if left_out := sum(base not in "ACGT" for base in sequence):
        print(f"{region}: SKIP_NO_BASE {left_out}", file=sys.stderr)
    return 0


def make_scorer(config: Config, reference: Reference, region: Interval, sequence: str, device: torch.device) -> Scorer:
    """By the kind of the model.

    Raises:
        CheckpointError: it cannot be read, or is none of these kinds.
        ConfigError: --horizon for a model that is not causal.
    """
    from genomamba.data.datasets import WindowReader
    from genomamba.errors import CheckpointError, ConfigError
    from genomamba.genome.interval import Interval
    from genomamba.interop.loading import load_any_model
    from genomamba.model.backbone import CausalLM, MaskedLM
    from genomamba.model.heads import VariantClassifier
    from genomamba.model.sequence_heads import SequenceModel
    from genomamba.pipelines.model_provenance import model_window
    from genomamba.scoring.causal_mutagenesis import CausalMutagenesis
    from genomamba.scoring.mutagenesis import SiteMutagenesis, classifier_mutagenesis
    from genomamba.scoring.variants import VariantScorer

    model = load_any_model(config.model)
    if isinstance(model, SequenceModel):
        return sequence_scorer(config, model, reference.ids(region), device)
    if config.target is not None:
        raise ConfigError("only a model of classes has one", "leave it out", field="target", value=config.target)
    window = config.window or model_window(config.model)
    llr = ("llr_nats", "log p(alt) - log p(ref), nats", "mean of log p(ref) - log p(alt), nats", True)
    if isinstance(model, CausalLM):
        causal = CausalMutagenesis(
            model,
            horizon=config.horizon,
            rows=config.batch_size,
            tokens=TOKENS[device.type],
            device=device,
        )
        around = Interval(region.contig, region.start - window // 2, region.end + window // 2)
        stretch = around.clip(reference.contigs[region.contig])[0]
        own = (region.start - stretch.start, region.end - stretch.start)
        return Scorer(partial(causal, reference.ids(stretch), *own), 2, *llr)
    if config.horizon is not None:
        raise ConfigError("only a causal model has one", "leave it out", field="horizon", value=config.horizon)
    if isinstance(model, MaskedLM):
        masked = SiteMutagenesis(
            model, WindowReader(reference, softmask_weight=1.0), window=window, rows=config.batch_size, device=device
        )
        return Scorer(partial(masked, region), 1, *llr)
    if not isinstance(model, VariantClassifier):
        raise CheckpointError("it scores no substitutions", "give a language model or a classifier", file=config.model)
    variants = VariantScorer(model, reference, window=window, batch_size=config.batch_size, device=device)
    score = partial(classifier_mutagenesis, variants, region, sequence)
    probability = "probability of the positive class"
    return Scorer(score, 1, "p_positive", probability, f"mean {probability}", False)


def sequence_scorer(config: Config, model: SequenceModel, ids: Ids, device: torch.device) -> Scorer:
    """Of a model of whole sequences.

    Raises:
        ConfigError: --target is none of its classes.
    """
    import numpy as np

    from genomamba.errors import ConfigError
    from genomamba.scoring.mutagenesis import sequence_mutagenesis
    from genomamba.scoring.sequences import SequenceScorer

    scorer = SequenceScorer(model, batch_size=config.batch_size, device=device)
    if config.target is not None and config.target not in model.classes:
        known = ", ".join(model.classes) or "none, for it gives values"
        raise ConfigError("the model has no such class", f"it has {known}", field="target", value=config.target)
    if model.is_regression:
        score = partial(sequence_mutagenesis, scorer, ids, None, config.batch_size)
        return Scorer(score, 1, "change_of_value", "change of the value", "mean loss of the value", True)
    if config.target is not None:
        target = model.classes.index(config.target)
    elif len(model.classes) == 2:
        target = 1
    else:
        target = int(np.argmax(scorer.answers([ids])[0]))
    name = model.classes[target]
    log_odds = f"log-odds of {name}, nats"
    score = partial(sequence_mutagenesis, scorer, ids, target, config.batch_size)
    column = f"change_of_log_odds_nats_{name}"
    return Scorer(score, 1, column, f"change of {log_odds}", f"mean loss of {log_odds}", True)


def check_pictures(config: Config, region: Interval) -> None:
    """Before anything is computed; raises ConfigError."""
    if config.logo is None and config.heatmap is None:
        return
    from genomamba.pipelines.attribution_pictures import check_picture

    if config.logo is not None:
        check_picture(config.logo, option="logo", bases=region.length)
    if config.heatmap is not None:
        check_picture(config.heatmap, option="heatmap")


def draw(
    config: Config, region: Interval, sequence: str, scores: np.ndarray, scorer: Scorer, together: ExitStack
) -> None:
    """The pictures that were asked for; they are in place once ``together`` is left."""
    if config.logo is None and config.heatmap is None:
        return
    from genomamba.files import whole_file
    from genomamba.pipelines.attribution_pictures import Attribution, heat_map, logo, save

    attribution = Attribution(region, sequence, scores, scorer.unit, scorer.worth, scorer.is_change)
    for path, picture in ((config.heatmap, heat_map), (config.logo, logo)):
        if path is not None:
            save(picture(attribution), together.enter_context(whole_file(path)), path)
