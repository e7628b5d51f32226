from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genomamba.data.prescan import prescan
from genomamba.data.reference import Reference
from genomamba.data.variants import Status
from genomamba.data.vcf import VcfReader
from genomamba.errors import RegionError, VariantFileError

GENOME = {
    name: np.random.Generator(np.random.Philox(seed)).choice(list("ACGT"), 600)
    for seed, name in enumerate(("chr1", "chr2", "chrM"))
}
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    path = tmp_path / "r.fa"
    path.write_text("".join(f">{name}\n{''.join(bases)}\n" for name, bases in GENOME.items()))
    return Reference.open(path)


def snvs(chrom: str, contig: str = "chr1", *, n: int = 100, wrong: int = 0, shift: int = 0) -> list[str]:
    """``n`` SNVs called ``chrom``; the REF of ``wrong`` of them disagrees, and all stand ``shift`` too far right."""
    lines = []
    for i in range(n):
        ref = GENOME[contig][5 * i + 9]
        ref = OTHER[ref] if i < wrong else ref
        lines.append(f"{chrom}\t{5 * i + 10 + shift}\t.\t{ref}\t{OTHER[ref]}\t.\t.\t.")
    return lines


def write(folder: Path, lines: list[str], contigs: dict[str, int | None] | None = None) -> Path:
    path = folder / "in.vcf"
    header = ["##fileformat=VCFv4.2"]
    for name, length in (contigs or {}).items():
        header.append(f"##contig=<ID={name}{f',length={length}' if length else ''}>")
    header.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    path.write_text("".join(f"{line}\n" for line in [*header, *lines]))
    return path


def test_counts_by_status_and_ref(tmp_path: Path, reference: Reference) -> None:
    odd = ["chr1\t0\t.\tA\tC\t.\t.\t.", f"chr1\t3\t.\t{GENOME['chr1'][2].lower()}\t<DEL>,{GENOME['chr1'][2]}\t.\t.\t."]
    path = write(tmp_path, [*snvs("chr1"), *odd, "9\t1\t.\tA\tC,G\t.\t.\t."], {"chr1": 600, "9": None})
    with VcfReader(path) as reader:
        found = prescan(reader, reference)
    assert found.records == 103
    assert found.alleles == {
        Status.OK: 100,
        Status.SKIP_OUT_OF_RANGE: 1,
        Status.SKIP_SYMBOLIC: 1,
        Status.SKIP_ALT_EQUALS_REF: 1,
        Status.SKIP_NO_CONTIG: 2,
    }
    assert found.refs == Counter({Status.OK: 101, Status.SKIP_OUT_OF_RANGE: 1, Status.SKIP_NO_CONTIG: 1})
    assert found.lower_case == 1
    assert found.contigs == {"chr1": "chr1"}
    assert found.lengths == {"chr1": 600, "9": None}
    assert found.warnings == [f"{path}: {reference.path} has no contig 9; records there are skipped"]


@pytest.mark.parametrize(("wrong", "max_mismatch", "refused"), [(5, 0.05, False), (6, 0.05, True), (6, 0.06, False)])
def test_the_wrong_assembly(
    tmp_path: Path, reference: Reference, wrong: int, max_mismatch: float, refused: bool
) -> None:
    path = write(tmp_path, snvs("chr1", wrong=wrong), {"chr1": 600})
    with VcfReader(path) as reader:
        if not refused:
            assert prescan(reader, reference, max_mismatch=max_mismatch).refs[Status.SKIP_REF_MISMATCH] == wrong
            return
        with pytest.raises(VariantFileError, match=rf"wrong assembly\?.* in {wrong} of 100 records") as caught:
            prescan(reader, reference, max_mismatch=max_mismatch)
    assert str(caught.value).startswith(f"{path}:4: REF=")


@pytest.mark.parametrize("shift", [-1, 1])
def test_positions_off_by_one_are_named(tmp_path: Path, reference: Reference, shift: int) -> None:
    with (
        VcfReader(write(tmp_path, snvs("chr1", shift=shift), {"chr1": 600})) as reader,
        pytest.raises(VariantFileError, match=rf"wrong assembly\?.*agree at POS \{-shift:+d}: count POS from 1"),
    ):
        prescan(reader, reference)


def test_without_a_common_contig_both_name_sets_are_listed(tmp_path: Path, reference: Reference) -> None:
    for chrom, remedy in (("1", "--contig-aliases auto"), ("I", "one and the same assembly")):
        with VcfReader(write(tmp_path, snvs(chrom))) as reader, pytest.raises(RegionError) as caught:
            prescan(reader, reference)
        assert f"here {chrom}; in {reference.path} chr1, chr2, chrM" in str(caught.value)
        assert remedy in str(caught.value)


@pytest.mark.parametrize("lengths", [{"1": 600, "MT": 600}, None])
def test_aliases(tmp_path: Path, reference: Reference, lengths: dict[str, int | None] | None) -> None:
    with VcfReader(write(tmp_path, [*snvs("1"), *snvs("MT", "chrM")], lengths)) as reader:
        found = prescan(reader, reference, aliases="auto")
    assert found.contigs == {"1": "chr1", "MT": "chrM"}
    assert found.refs == {Status.OK: 200}


def test_an_alias_of_another_length_is_none(tmp_path: Path, reference: Reference) -> None:
    lines = [*snvs("1"), *snvs("MT", "chrM")]
    with VcfReader(write(tmp_path, lines, {"1": 600, "MT": 601})) as reader:
        assert prescan(reader, reference, aliases="auto").contigs == {"1": "chr1"}


@pytest.mark.parametrize("wrong", [2, 40])
def test_an_alias_without_a_length_needs_its_refs(tmp_path: Path, reference: Reference, wrong: int) -> None:
    """Among many good records of other contigs, a mitochondrion that is another one still shows."""
    lines = [*snvs("1"), *(snvs("2", "chr2") * 9), *snvs("MT", "chrM", n=wrong, wrong=wrong)]
    with (
        VcfReader(write(tmp_path, lines)) as reader,
        pytest.raises(VariantFileError, match=rf"MT: it cannot be chrM .*: {wrong} of its {wrong} REFs disagree"),
    ):
        prescan(reader, reference, aliases="auto")


def test_one_wrong_ref_of_many_does_not_break_an_alias(tmp_path: Path, reference: Reference) -> None:
    with VcfReader(write(tmp_path, [*snvs("1", wrong=1), *snvs("2", "chr2")])) as reader:
        assert prescan(reader, reference, aliases="auto").refs[Status.SKIP_REF_MISMATCH] == 1


def test_warnings(tmp_path: Path, reference: Reference) -> None:
    path = write(tmp_path, [*snvs("chr1"), *snvs("chr2", "chr2")], {"chr1": 700})
    with VcfReader(path) as reader:
        assert prescan(reader, reference).warnings == [
            f"{path}: the header declares no contig chr2; the output's header does",
            f"{path}: the header says that chr1 has 700 bases; in {reference.path} it has 600",
        ]


def test_no_records_are_no_error(tmp_path: Path, reference: Reference) -> None:
    with VcfReader(write(tmp_path, [])) as reader:
        assert prescan(reader, reference).records == 0
