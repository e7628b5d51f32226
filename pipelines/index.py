"""Check every record of a FASTA (plain or bgzip; GenBank, EMBL and 2bit too) and build its memory-mapped index.

Other commands build the index themselves when it is missing; this one does it ahead of time and says what it found.
"""

from __future__ import annotations

from dataclasses import dataclass

from genomamba.pipelines.option import option


@dataclass(frozen=True)
class Config:
    fasta: str = option("the sequence file", positional=True, reads="file")
    rna: bool = option("read U as T", False)
    force: bool = option("build anew even where a good index exists", False)


def run(config: Config) -> int:
    from genomamba.pipelines.open_reference import open_reference, rebuild_index

    if config.force:
        rebuild_index(config.fasta, rna=config.rna)
    found = open_reference(config.fasta, rna=config.rna).summary()
    print(f"{found.path}: {found.contigs} contigs, {found.bases:,} bases")
    print(f"  N {found.n:,}; soft-masked {found.soft_masked:,}; other IUPAC codes {found.ambiguous:,}")
    if found.empty:
        print(f"  empty records: {', '.join(found.empty)}")
    for what, count in found.normalised.items():
        print(f"  {what}: {count:,}")
    print(f"  fingerprint {found.fingerprint}")
    print(f"  index {found.index}")
    return 0
