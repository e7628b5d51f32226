"""Cuts the bundled files from a GRCh38 FASTA and a ClinVar VCF of the same assembly.

    python -m genomamba.data.example.make_example --reference GRCh38.fa.gz --clinvar clinvar.vcf.gz --out data/example

The FASTA may be the whole genome or any part of it that has REGIONS in true coordinates. ClinVar's contigs may lack
the FASTA's ``chr``. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam

from genomamba.data.labels import LABELS, first_gene
from genomamba.data.reference import Reference
from genomamba.data.variants import Status, classify
from genomamba.data.vcf import VcfReader, VcfRecord, info_value
from genomamba.data.vcf_write import VcfWriter
from genomamba.files import whole_file
from genomamba.genome.interval import Interval

#: what is kept of the reference: three genes with their flanks, and the stretch of chromosome 17 around BRCA1
REGIONS = {
    "BRCA2": Interval("chr13", 32_314_085, 32_400_868),
    "PALB2": Interval("chr16", 23_602_559, 23_642_321),
    "TP53": Interval("chr17", 7_661_178, 7_688_546),
    "BRCA1": Interval("chr17", 42_424_999, 43_600_000),
}
#: the INFO keys that are kept
KEYS = ("ALLELEID", "CLNREVSTAT", "CLNSIG", "CLNVC", "GENEINFO", "MC")
SCORED_GENE = "BRCA1"
SCORED_RECORDS = 2000
MNVS = 20
MADE_UP = "EXAMPLE"
MADE_UP_LINES = (
    '##ALT=<ID=DEL,Description="Deletion">',
    f'##INFO=<ID={MADE_UP},Number=1,Type=String,Description="Not a ClinVar record: added to show odd ones">',
)

_WIDTH = 100


def main() -> None:
    """Writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--clinvar", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_reference(Reference.open(options.reference), options.out / "reference.fa.gz")
    with VcfReader(options.clinvar) as clinvar:
        reference = Reference.open(options.out / "reference.fa.gz", cache=False)
        records = [cut(record) for record in clinvar if first_gene(record.info) in REGIONS]
        labelled = [record for record in records if info_value(record.info, "CLNSIG") in LABELS]
        header = cut_header(clinvar.header, reference)
        write_vcf(options.out / "clinvar.vcf.gz", header, labelled)
        write_vcf(options.out / "variants.vcf.gz", header, to_be_scored(records, reference), MADE_UP_LINES)


def write_reference(genome: Reference, path: Path) -> None:
    """The contigs of REGIONS at their full lengths, N outside, as bgzip FASTA."""
    with whole_file(path) as temporary, pysam.BGZFile(str(temporary), "wb", None) as out:
        for contig in dict.fromkeys(region.contig for region in REGIONS.values()):
            residues = np.full(genome.contigs[contig], ord("N"), dtype=np.uint8)
            for region in REGIONS.values():
                if region.contig == contig:
                    residues[region.start : region.end] = genome.fetch(region)
            out.write(f">{contig}\n".encode())
            for start in range(0, residues.size, _WIDTH * 10_000):
                block = residues[start : start + _WIDTH * 10_000].tobytes()
                lines = (block[at : at + _WIDTH] for at in range(0, len(block), _WIDTH))
                out.write(b"\n".join(lines) + b"\n")


def cut(record: VcfRecord) -> VcfRecord:
    """The record on the reference's contig name, with KEYS alone in INFO."""
    contig = record.contig if record.contig.startswith("chr") else f"chr{record.contig}"
    info = ";".join(f"{key}={value}" for key in KEYS if (value := info_value(record.info, key)) is not None)
    fields = record.text.split("\t")
    fields[0], fields[7] = contig, info or "."
    return record._replace(contig=contig, info=fields[7], text="\t".join(fields))


def cut_header(header: list[str], reference: Reference) -> list[str]:
    """What still holds of ClinVar's header, and the contigs."""
    general = [
        line for line in header if line.startswith(("##fileformat=", "##fileDate=", "##source=", "##reference="))
    ]
    declared = [line for line in header if line.startswith(tuple(f"##INFO=<ID={key}," for key in KEYS))]
    contigs = [f"##contig=<ID={contig},length={length}>" for contig, length in reference.contigs.items()]
    return [*general, *contigs, *declared, header[-1]]


def to_be_scored(records: Iterable[VcfRecord], reference: Reference) -> list[VcfRecord]:
    """About SCORED_RECORDS records of SCORED_GENE whatever their class, evenly along the gene; all without ALT, some
    MNVs, and some made up."""
    gene = [record for record in records if first_gene(record.info) == SCORED_GENE]
    sites = [classify(record, record.contig, reference) for record in gene]
    even = set(np.linspace(0, len(gene) - 1, SCORED_RECORDS).round().astype(int).tolist())
    without_alt = {i for i, site in enumerate(sites) if site.alleles[0].status is Status.SKIP_NO_ALT}
    mnvs = [i for i, site in enumerate(sites) if site.alleles[0].variant and site.alleles[0].variant.kind == "MNV"]
    some_mnvs = mnvs[:: max(1, len(mnvs) // MNVS)]
    chosen = [gene[i] for i in sorted({*even, *without_alt, *some_mnvs})]
    return sorted([*chosen, *made_up(gene)], key=lambda record: record.pos)


def made_up(gene: list[VcfRecord]) -> Iterator[VcfRecord]:
    """Records that ClinVar does not have: several ALTs, a symbolic one, a spanning deletion."""
    snvs = [record for record in gene if len(record.ref) == 1 and len(record.alts[0]) == 1 and record.alts[0] in "ACGT"]
    middle = snvs[len(snvs) // 2 :]
    first, second = next(pair for pair in pairwise(middle) if pair[0].pos == pair[1].pos)
    yield _made_up(first, f"{first.alts[0]},{second.alts[0]}", f"{first.id}_and_{second.id}_in_one_record")
    yield _made_up(middle[100], "<DEL>", "a_symbolic_allele")
    yield _made_up(middle[200], f"{middle[200].alts[0]},*", "a_spanning_deletion_beside_an_SNV")


def _made_up(like: VcfRecord, alt: str, why: str) -> VcfRecord:
    info = f"{MADE_UP}={why}"
    fields = [like.contig, str(like.pos), f"example_{like.pos}", like.ref, alt, ".", ".", info]
    return VcfRecord(0, like.contig, like.pos, fields[2], like.ref, tuple(alt.split(",")), info, "\t".join(fields))


def write_vcf(path: Path, header: list[str], records: Iterable[VcfRecord], extra: Iterable[str] = ()) -> None:
    with VcfWriter(path, header, extra, force=True) as writer:
        for record in records:
            writer.write(record, {})


if __name__ == "__main__":
    main()
