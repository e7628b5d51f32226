"""Score the variants of a VCF or BCF into an annotated copy of it.

Every record comes out, in order. INFO gains GENOMAMBA (ALLELE|MODEL|LLR|PROB|STATUS per ALT), GM_LLR and GM_PROB
(missing unless the model is a classifier). LLR is log p(alt) - log p(ref) in nats over the window, averaged over both
strands. What cannot be scored says why in STATUS; a summary by status goes to stderr.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from genomamba.pipelines.options import option
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    from genomamba.data.variants import Status
    from genomamba.scoring.variants import VariantScore


SKIPPED_TOO_MANY = 3
RECORDS_AT_ONCE = 4096  # in memory; enough to fill many forward passes
HEADER = (
    '##INFO=<ID=GENOMAMBA,Number=A,Type=String,Description="ALLELE|MODEL|LLR|PROB|STATUS of each ALT">',
    '##INFO=<ID=GM_LLR,Number=A,Type=Float,Description="log p(alt) - log p(ref) in nats over the window">',
    '##INFO=<ID=GM_PROB,Number=A,Type=Float,Description="Calibrated probability of the positive class">',
)


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r")
    input: str = option("VCF or BCF; - is stdin", short="-i")
    model: str = option("run folder of `pretrain` or `finetune variants`", short="-m")
    output: str = option("annotated .vcf, .vcf.gz (with index) or .bcf; - is stdout", short="-o")
    window: int | None = option(
        "bases of context around each variant; the model's own when not given", None, at_least=2
    )
    batch_size: int = option("variants per forward pass", 64, at_least=1)
    max_skip_frac: float = option("exit with 3 when a larger share of alleles was skipped", 1.0, at_least=0)
    max_mismatch_frac: float = option(
        "refuse the input when REF disagrees in a larger share of alleles", 0.05, at_least=0
    )
    contig_aliases: Literal["none", "auto"] = option(
        "auto: match 1 with chr1 and MT with chrM where lengths agree", "none"
    )
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    import sys
    from itertools import islice

    from genomamba import __version__
    from genomamba.data.prescan import prescan
    from genomamba.data.variants import classify
    from genomamba.data.vcf import VcfReader
    from genomamba.data.vcf_write import VcfWriter
    from genomamba.errors import CheckpointError
    from genomamba.files import refuse_existing
    from genomamba.model.backbone import MaskedLM
    from genomamba.model.folder import load_model
    from genomamba.model.sequence_heads import SequenceModel
    from genomamba.pipelines.model_provenance import model_window
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.progress import progress_bar
    from genomamba.scoring.variants import VariantScorer
    from genomamba.tasks.trainer import resolve_device

    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    model = load_model(config.model)
    if isinstance(model, MaskedLM):
        raise CheckpointError(
            "a masked language model has no log-likelihood of a sequence",
            "give a causal one or a classifier",
            file=config.model,
        )
    if isinstance(model, SequenceModel):
        raise CheckpointError(
            "a model of whole sequences has no score of a variant",
            "give a causal language model or a variant classifier",
            file=config.model,
        )
    window = config.window or model_window(config.model)
    reference = open_reference(config.reference, rna=config.rna)
    name = model_name(config.model)
    header = (f"##genomamba=<ID={name},Version={__version__},Window={window}>", *HEADER)
    statuses: Counter[Status] = Counter()
    with VcfReader(config.input) as reader:
        checked = prescan(
            reader,
            reference,
            window=window,
            aliases=None if config.contig_aliases == "none" else "auto",
            max_mismatch=config.max_mismatch_frac,
        )
        for warning in checked.warnings:
            print(warning, file=sys.stderr)
        if checked.lower_case:
            print(f"{checked.lower_case:,} records with lower-case alleles were read as upper case", file=sys.stderr)
        scorer = VariantScorer(model, reference, window=window, batch_size=config.batch_size, device=device)
        writer = VcfWriter(config.output, reader.header, header, contigs=checked.lengths, force=config.force)
        with writer, progress_bar() as bar:
            task = bar.add_task("scoring", total=checked.records, note="records")
            records = iter(reader)
            while chunk := list(islice(records, RECORDS_AT_ONCE)):
                sites = [classify(r, checked.contigs.get(r.contig), reference, window=window) for r in chunk]
                scores = scorer([a.variant for site in sites for a in site.alleles if a.variant is not None])
                for record, site in zip(chunk, sites, strict=True):
                    own = [next(scores) if allele.variant is not None else None for allele in site.alleles]
                    writer.write(record, annotation(record.alts, name, own, [a.status for a in site.alleles]))
                    statuses.update(allele.status for allele in site.alleles)
                    bar.advance(task)
        if writer.note is not None:
            print(writer.note, file=sys.stderr)
    return summarise(statuses, checked.records, config, sys.stderr)


def annotation(
    alts: Sequence[str], model: str, scores: Sequence[VariantScore | None], statuses: Sequence[Status]
) -> Mapping[str, str]:
    """The INFO keys of one record, one value per ALT."""
    llrs = ["." if score is None else f"{score.llr:.5g}" for score in scores]
    probabilities = [
        "." if score is None or score.probability is None else f"{score.probability:.5g}" for score in scores
    ]
    each = [
        "|".join((_plain(alt), model, llr, probability, status))
        for alt, llr, probability, status in zip(alts, llrs, probabilities, statuses, strict=True)
    ]
    return {"GENOMAMBA": ",".join(each), "GM_LLR": ",".join(llrs), "GM_PROB": ",".join(probabilities)}


def model_name(folder: str) -> str:
    """The folder's name, without what INFO cannot hold."""
    return _plain(Path(folder).resolve().name)


def _plain(text: str) -> str:
    """Breakends and symbolic alleles may hold what separates INFO's values; VCF 4.3 percent-encodes those."""
    for character in "%,;=| ":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def summarise(statuses: Counter[Status], records: int, config: Config, stream: TextIO) -> int:
    """Prints the counts by status; returns the exit code."""
    alleles = sum(statuses.values())
    scored = sum(count for status, count in statuses.items() if status.scored)
    print(f"{config.output}: {records:,} records, {alleles:,} alleles, {scored:,} scored", file=stream)
    for status, count in sorted(statuses.items(), key=lambda item: -item[1]):
        print(f"  {status:<26}{count:>10,}", file=stream)
    if alleles and (alleles - scored) / alleles > config.max_skip_frac:
        share = f"{(alleles - scored) / alleles:.3f}"
        print(f"max_skip_frac={config.max_skip_frac}: {share} of the alleles were skipped", file=stream)
        return SKIPPED_TOO_MANY
    return 0
