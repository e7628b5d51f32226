"""What a process other than the one that the user started needs to score shards as that one would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genomamba.data.vcf import VcfRecord

if TYPE_CHECKING:
    import torch

    from genomamba.scoring.batch_size import Halved


@dataclass(frozen=True)
class ScoreRecipe:
    """What it loads; paths are such that its machine knows them.

    Attributes:
        model: folder.
        reference: FASTA.
        rna: see `Reference.open`.
        contigs: see `score_records`.
        options: keyword arguments of `VariantScorer`.
    """

    model: str
    reference: str
    rna: bool
    contigs: dict[str, str]
    options: dict[str, Any]

    def make(self, device: torch.device) -> ShardScorer:
        return ShardScorer(self, device)


class ShardScorer:
    """Loads the model once, then turns a shard's records into the plain form of its scores."""

    def __init__(self, recipe: ScoreRecipe, device: torch.device) -> None:
        from genomamba.data.reference import Reference
        from genomamba.model.folder import load_model
        from genomamba.scoring.variants import VariantScorer

        self._contigs = recipe.contigs
        self._reference = Reference.open(recipe.reference, rna=recipe.rna)
        model: Any = load_model(recipe.model)
        self._scorer = VariantScorer(model, self._reference, device=device, **recipe.options)

    def __call__(self, records: Sequence[VcfRecord]) -> Any:
        from genomamba.scoring.records import score_records, to_plain

        return to_plain(score_records(records, self._contigs, self._reference, self._scorer))

    @property
    def halved(self) -> Halved | None:
        """What became of its batches until now; None where they fit."""
        return self._scorer.halved
