"""Check every record of a FASTA (plain or bgzip; GenBank, EMBL and 2bit too) and build its memory-mapped index.

Other commands build the index themselves when it is missing; this one does it ahead of time and says what it found.
"""

from __future__ import annotations

from dataclasses import dataclass

from genomamba.pipelines.options import option


@dataclass(frozen=True)
class Config:
    fasta: str = option("the sequence file", positional=True)
    rna: bool = option("read U as T", False)
    force: bool = option("build anew even where a good index exists", False)


def run(config: Config) -> int:
    from genomamba.data.index import build_index
    from genomamba.data.reference import Reference
    from genomamba.progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("indexing", total=None, note="")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        build_index(config.fasta, force=config.force, rna=config.rna, progress=advance)
    print(Reference.open(config.fasta, rna=config.rna).summary())
    return 0
