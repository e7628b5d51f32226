"""Score the variants of a VCF or BCF into an annotated copy of it.

Every record comes out, in order. INFO gains GENOMAMBA (ALLELE|MODEL|LLR|PROB|STATUS per ALT), GM_LLR and, from a
classifier, GM_PROB. LLR is log p(alt) - log p(ref) in nats over the window, averaged over both strands. What cannot
be scored says why in STATUS; a summary by status goes to stderr.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genomamba.pipelines.options import option
from genomamba.tasks.config import Device


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that the variants stand on", short="-r")
    input: str = option("VCF or BCF; - is stdin", short="-i")
    model: str = option("run folder of `pretrain` or `finetune variants`", short="-m")
    output: str = option("annotated .vcf, .vcf.gz (with index) or .bcf; - is stdout", short="-o")
    window: int | None = option("bases of context around each variant; the model's own when not given", None)
    batch_size: int = option("variants per forward pass", 64)
    max_skip_frac: float = option("exit with 3 when a larger share of alleles was skipped", 1.0)
    max_mismatch_frac: float = option("refuse the input when REF disagrees in a larger share of alleles", 0.05)
    contig_aliases: Literal["none", "auto"] = option("auto: match 1 with chr1 and MT with chrM where lengths agree", "none")
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)
