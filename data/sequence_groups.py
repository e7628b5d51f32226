"""Splits of sequences by where they come from: whole contigs, genes, or blocks of the genome."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from genomamba.data.label_splits import split_of_span
from genomamba.data.rows import nearest
from genomamba.data.sequences import LabelledSequence, LabelledSequences
from genomamba.errors import LabelError


@dataclass(frozen=True)
class SequenceGrouping:
    """What is never shared by two splits; what ``dev`` and ``test`` do not name is train.

    Where ``dev`` names nothing, a share of train's sequences becomes dev, whatever their groups.

    Args:
        by: contig or block of the genome, which only a BED's sequences have, or gene, a column of the table.
        dev: contigs or genes.
        test: likewise.
        block_size: bases of a block, which belongs to a split by a hash of its place and the seed.
        dev_share: of blocks.
        test_share: of blocks.
        seed: of blocks.
    """

    by: Literal["contig", "gene", "block"]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    block_size: int = 1_000_000
    dev_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0

    def mark(self, found: LabelledSequences, *, all_there: bool = True) -> LabelledSequences:
        """The same sequences with these splits instead of their column's.

        A sequence that reaches into a block of another split belongs to none and is left out.

        Args:
            found: the sequences.
            all_there: refuse groups of ``dev`` and ``test`` that no sequence has.

        Raises:
            LabelError: sequences have no group, a group is named that none has, or one is named for two splits.
        """
        groups = [self._group(item, found.source) for item in found.items]
        if self.by == "block":
            splits = groups
        else:
            wanted = self._wanted(Counter(groups) if all_there else None, found.source)
            splits = [wanted.get(group, "train") for group in groups]
        pairs = list(zip(found.items, splits, strict=True))
        return dataclasses.replace(
            found,
            items=[item._replace(split=split) for item, split in pairs if split],
            at_edges=[item.line for item, split in pairs if not split],
        )

    def _group(self, item: LabelledSequence, source: str) -> str:
        """The sequence's group; of blocks, the split itself, empty at an edge."""
        if self.by == "gene":
            return item.gene
        if item.place is None:
            raise LabelError(
                f"sequences that no BED places have no {self.by}",
                "give a BED with -r and --labels, or mark splits in a column",
                file=source,
                field="split-by",
                value=self.by,
            )
        if self.by == "contig":
            return item.place.contig
        split = split_of_span(item.place, self.block_size, self.seed, self.dev_share, self.test_share)
        return "dev" if split == "valid" else split

    def _wanted(self, known: Counter[str] | None, source: str) -> dict[str, str]:
        wanted: dict[str, str] = {}
        for split, names in (("dev", self.dev), ("test", self.test)):
            for name in names:
                if wanted.setdefault(name, split) != split:
                    raise LabelError(
                        f"the {self.by} stands in dev too", "give it to one split", field=split, value=name
                    )
                if known is not None and name not in known:
                    named = [group for group, _ in known.most_common() if group]
                    remedy = f"there is {nearest(name, named)}" if named else "none says any; fill the column"
                    raise LabelError(f"no sequence has this {self.by}", remedy, file=source, field=split, value=name)
        return wanted
