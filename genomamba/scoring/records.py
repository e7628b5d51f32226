"""Records of a variant file to scores: the one function that every way of running `score` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from genomamba.data.reference import Reference
from genomamba.data.variants import Status, classify
from genomamba.data.vcf import VcfRecord
from genomamba.scoring.distances import Distances
from genomamba.scoring.variants import VariantScore, VariantScorer


class AlleleScore(NamedTuple):
    """What became of one entry of ALT."""

    status: Status
    score: VariantScore | None  # None exactly where the status is a SKIP_ one


def score_records(
    records: Sequence[VcfRecord], contigs: Mapping[str, str], reference: Reference, scorer: VariantScorer
) -> list[list[AlleleScore]]:
    """One list per record, with one entry per ALT, in order.

    Args:
        records: as read.
        contigs: their contigs' names to the reference's; what is missing is skipped.
        reference: the genome.
        scorer: of a model on that genome.
    """
    sites = [classify(r, contigs.get(r.contig), reference, window=scorer.window, step=scorer.step) for r in records]
    scores = scorer([allele.variant for site in sites for allele in site.alleles if allele.variant is not None])
    return [
        [AlleleScore(allele.status, next(scores) if allele.variant is not None else None) for allele in site.alleles]
        for site in sites
    ]


def to_plain(scores: Sequence[Sequence[AlleleScore]]) -> Any:
    """Lists of numbers and strings, which `from_plain` turns back to the last bit, by way of JSON too."""
    return [[[allele.status, allele.score] for allele in alleles] for alleles in scores]


def from_plain(plain: Any) -> list[list[AlleleScore]]:
    """The inverse of `to_plain`."""
    return [[AlleleScore(Status(status), _score(score)) for status, score in alleles] for alleles in plain]


def _score(plain: Any) -> VariantScore | None:
    if plain is None:
        return None
    llr, probability, logit, distances = plain
    return VariantScore(llr, probability, logit, None if distances is None else Distances(*distances))
