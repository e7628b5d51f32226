from collections import Counter
from pathlib import Path

import pytest

from genomamba.data.example import FILES, example_path
from genomamba.data.label_splits import check_leakage, split_by_group
from genomamba.data.labels import read_labelled_vcf
from genomamba.data.prescan import prescan
from genomamba.data.reference import Reference
from genomamba.data.variants import Status, classify
from genomamba.data.vcf import VcfReader

GENES = {"BRCA2": 11195, "BRCA1": 7626, "TP53": 2234, "PALB2": 1272}
CONTIGS = {"chr13": 114_364_328, "chr16": 90_338_345, "chr17": 83_257_441}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    with example_path("reference.fa.gz") as path:
        return Reference.open(path, cache_dir=tmp_path_factory.mktemp("index"))


def test_it_is_small() -> None:
    with example_path("reference.fa.gz") as path:
        assert sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file()) < 4e6


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=", ".join(FILES)):
        example_path("genome.fa")  # type: ignore[arg-type]


def test_the_reference_has_true_coordinates(reference: Reference) -> None:
    assert reference.contigs == CONTIGS
    summary = reference.summary()
    assert summary.bases - summary.n == 1_328_914
    assert summary.ambiguous == 0
    # the first codons: BRCA2 (MPIGS) on the forward strand, BRCA1 (MDLSA) on the reverse
    assert reference.sequence("chr13", 32_316_460, 32_316_475) == "ATGCCTATTGGATCC"
    assert reference.sequence("chr17", 43_124_080, 43_124_096) == "GAGCAGATAAATCCAT"


def test_the_labelled_variants(reference: Reference) -> None:
    with example_path("clinvar.vcf.gz") as path, VcfReader(path) as reader:
        found = prescan(reader, reference)
        assert found.records == 22369
        assert found.refs == {Status.OK: 22369}
        assert found.warnings == []
        assert reader.contigs == CONTIGS
        labelled = read_labelled_vcf(reader, reference, found.contigs)
    assert Counter(item.gene for item in labelled.items) == GENES
    assert Counter(item.label for item in labelled.items) == {1: 11208, 0: 11119}
    assert labelled.skipped == {Status.SKIP_AMBIGUOUS_ALT: 38, Status.SKIP_NO_ALT: 4}
    assert not labelled.unlabelled
    splits = split_by_group(labelled, ["BRCA2", "PALB2"], ["TP53"], ["BRCA1"])
    assert [len(split) for split in splits] == [12467, 2234, 7626, 0]
    check_leakage(splits, reference, 16384, labelled.source)


def test_the_variants_to_score(reference: Reference) -> None:
    with example_path("variants.vcf.gz") as path, VcfReader(path) as reader:
        found = prescan(reader, reference)
        records = list(reader)
    assert found.refs == {Status.OK: 2020}
    assert found.alleles == {
        Status.OK: 2015,
        Status.SKIP_NO_ALT: 3,
        Status.SKIP_AMBIGUOUS_ALT: 2,
        Status.SKIP_SYMBOLIC: 1,
        Status.SKIP_SPANNING_DELETION: 1,
    }
    alleles = [allele for record in records for allele in classify(record, record.contig, reference).alleles]
    kinds = Counter(allele.variant.kind for allele in alleles if allele.variant)
    assert kinds == {"SNV": 1496, "DEL": 314, "INS": 162, "INDEL": 15, "MNV": 28}
    assert [record.pos for record in records] == sorted(record.pos for record in records)
    made_up = [record for record in records if "EXAMPLE=" in record.info]
    assert len(made_up) == 3
    assert {record.id for record in made_up} == {r.id for r in records if r.id.startswith("example_")}
    assert {record.alts for record in made_up} >= {("<DEL>",)}


def test_the_readme_states_the_counts() -> None:
    with example_path("reference.fa.gz") as path:
        text = Path(path.parent / "README.md").read_text(encoding="utf-8")
    for number in (1_328_914, 22369, 22327, 2020, *GENES.values()):
        assert f"{number:,}" in text
