"""What `genomamba score` makes of bad variant files; the table of cases is the specification."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
import torch
from world import CliResult, write_reference

from genomamba.data.vcf import VcfReader, info_value
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model

WINDOW = 64
HEADER = """##fileformat=VCFv4.2
##contig=<ID=chrA,length=10000>
##contig=<ID=chrB,length=9000>
#CHROM	POS	ID	REF	ALT	QUAL	FILTER	INFO
"""
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
Genome = dict[str, str]
Score = Callable[..., CliResult]


def line(contig: str, pos: int | str, ref: str, alt: str) -> str:
    return f"{contig}\t{pos}\tid{pos}\t{ref}\t{alt}\t1e2\tq10\tX=1.50;Y"


def good(genome: Genome, *, contig: str = "chrA", n: int = 40, shift: int = 0) -> list[str]:
    """SNVs whose REF agrees, 100 bases apart; enough of them that one that does not is no wrong assembly."""
    bases = [(pos, genome[contig][pos - 1]) for pos in range(1000, 1000 + 100 * n, 100)]
    return [line(contig, pos + shift, ref, OTHER[ref]) for pos, ref in bases]


def text(lines: list[str], header: str = HEADER) -> str:
    return header + "".join(f"{each}\n" for each in lines)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory, genome: Genome) -> tuple[Path, Path]:
    """A reference, and a model that has learned nothing: what is refused or skipped does not depend on that."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4))
    save_model(model, folder / "model", card="", provenance={})
    return write_reference(folder / "genome.fa", genome), folder / "model"


@pytest.fixture
def score(untrained: tuple[Path, Path], run_cli: Callable[..., CliResult], tmp_path: Path) -> Score:
    """``score(text or bytes, *options)`` → result; the input is in.vcf, the output out.vcf."""

    def run(content: str | bytes, *options: object, out: str = "out.vcf") -> CliResult:
        path = tmp_path / "in.vcf"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        reference, model = untrained
        fixed = ("-r", reference, "-m", model, "--window", WINDOW, "-i", path, "-o", tmp_path / out)
        return run_cli("score", *fixed, *options)

    return run


def annotated(path: Path) -> list[tuple[str, list[str], list[str]]]:
    """Each record without what was added, its statuses, and its GM_LLR values."""
    rows = []
    with VcfReader(path) as reader:
        for record in reader:
            before, _, _ = record.text.partition(";GENOMAMBA=")
            statuses = [each.rsplit("|", 1)[1] for each in (info_value(record.info, "GENOMAMBA") or "").split(",")]
            rows.append((before, statuses, (info_value(record.info, "GM_LLR") or "").split(",")))
    return rows


def base(genome: Genome, pos: int, length: int = 1) -> str:
    return genome["chrA"][pos - 1 : pos - 1 + length]


def other(genome: Genome, pos: int) -> str:
    return OTHER[base(genome, pos)]


# number in the catalogue of bad inputs, and the record: contig, POS, REF, ALT from the genome; then the statuses
SKIPPED: list[tuple[int, Callable[[Genome], tuple[str, int, str, str]], list[str]]] = [
    (35, lambda g: ("chrA", 500, other(g, 500), base(g, 500)), ["SKIP_REF_MISMATCH"]),
    (37, lambda g: ("chrA", 500, base(g, 500), f"{other(g, 500)},{base(g, 500)}T"), ["OK", "OK"]),
    (38, lambda g: ("chrA", 500, base(g, 500), "<DEL>"), ["SKIP_SYMBOLIC"]),
    (38, lambda g: ("chrA", 500, base(g, 500), f"{base(g, 500)}[chrB:7["), ["SKIP_BREAKEND"]),
    (38, lambda g: ("chrA", 500, base(g, 500), f"{other(g, 500)},*"), ["OK", "SKIP_SPANNING_DELETION"]),
    (38, lambda g: ("chrA", 500, base(g, 500), "."), ["SKIP_NO_ALT"]),
    (38, lambda g: ("chrA", 500, base(g, 500), "-"), ["SKIP_MALFORMED_ALLELE"]),
    (39, lambda g: ("chrA", 500, base(g, 500, 3), "".join(OTHER[b] for b in base(g, 500, 3))), ["OK"]),
    (39, lambda g: ("chrA", 500, base(g, 500, 4), base(g, 500)), ["OK"]),
    (40, lambda g: ("chrA", 500, base(g, 500), base(g, 500)), ["SKIP_ALT_EQUALS_REF"]),
    (41, lambda g: ("chrA", 500, "N", "A"), ["SKIP_AMBIGUOUS_REF"]),
    (41, lambda g: ("chrA", 500, base(g, 500), "R"), ["SKIP_AMBIGUOUS_ALT"]),
    (42, lambda g: ("chrA", 500, base(g, 500).lower(), other(g, 500).lower()), ["OK"]),
    (48, lambda g: ("chrA", 0, "A", "C"), ["SKIP_OUT_OF_RANGE"]),
    (48, lambda g: ("chrA", 10_001, "A", "C"), ["SKIP_OUT_OF_RANGE"]),
    (49, lambda g: ("chrA", 500, base(g, 500), base(g, 500) + "ACGT" * 9), ["SKIP_TOO_LONG"]),
    (49, lambda g: ("chrA", 500, base(g, 500, 40), base(g, 500)), ["SKIP_TOO_LONG"]),
    (50, lambda g: ("chrA", 3, base(g, 3), other(g, 3)), ["EDGE"]),
    (50, lambda g: ("chrA", 10_000, base(g, 10_000), other(g, 10_000)), ["EDGE"]),
    (32, lambda g: ("chrZ", 500, "A", "C"), ["SKIP_NO_CONTIG"]),
]


@pytest.mark.parametrize(("number", "make", "statuses"), SKIPPED)
def test_an_odd_record_stays_and_says_why(
    score: Score,
    genome: Genome,
    tmp_path: Path,
    number: int,
    make: Callable[[Genome], tuple[str, int, str, str]],
    statuses: list[str],
) -> None:
    lines = [*good(genome), line(*make(genome))]
    result = score(text(lines))
    assert result.code == 0, result.err
    rows = annotated(tmp_path / "out.vcf")
    assert [row[0] for row in rows] == lines
    assert rows[-1][1] == statuses
    for status, llr in zip(statuses, rows[-1][2], strict=True):
        assert (llr == ".") == status.startswith("SKIP_")
        assert status in result.err
    assert all(row[1] == ["OK"] for row in rows[:-1])


def test_too_many_skipped_is_exit_code_3(score: Score, genome: Genome, tmp_path: Path) -> None:
    lines = [*good(genome), line("chrA", 500, base(genome, 500), "<DEL>")]
    assert score(text(lines), "--max-skip-frac", "0.01").code == 3
    assert len(annotated(tmp_path / "out.vcf")) == len(lines)
    assert score(text(lines), "--max-skip-frac", "0.05", "--force").code == 0


def test_36_positions_off_by_one_are_named(score: Score, genome: Genome, tmp_path: Path) -> None:
    result = score(text(good(genome, shift=1)))
    assert result.code == 2
    assert "wrong assembly?" in result.err
    assert "POS -1" in result.err
    assert not (tmp_path / "out.vcf").exists()


def test_35_the_wrong_assembly(score: Score, genome: Genome, tmp_path: Path) -> None:
    wrong = [line("chrA", pos, other(genome, pos), base(genome, pos)) for pos in (500, 510, 520)]
    lines = [*good(genome), *wrong]
    result = score(text(lines))
    assert result.code == 2
    assert "in.vcf:45: REF=" in result.err
    assert "in 3 of 43 records" in result.err
    assert not (tmp_path / "out.vcf").exists()
    assert score(text(lines), "--max-mismatch-frac", "0.1").code == 0
    assert [row[1] for row in annotated(tmp_path / "out.vcf")[-3:]] == [["SKIP_REF_MISMATCH"]] * 3


def test_42_case_changes_no_score(score: Score, genome: Genome, tmp_path: Path) -> None:
    ref, alt = base(genome, 500), other(genome, 500)
    assert score(text([line("chrA", 500, ref, alt), line("chrA", 500, ref.lower(), alt.lower())])).code == 0
    upper, lower = annotated(tmp_path / "out.vcf")
    assert upper[2] == lower[2] != ["."]


def test_43_both_duplicates_stay(score: Score, genome: Genome, tmp_path: Path) -> None:
    lines = [good(genome)[0]] * 2
    assert score(text(lines)).code == 0
    first, second = annotated(tmp_path / "out.vcf")
    assert first == second == (lines[0], ["OK"], first[2])


def test_44_unsorted_records_are_written_without_an_index(score: Score, genome: Genome, tmp_path: Path) -> None:
    lines = good(genome)[::-1]
    result = score(text(lines), out="out.vcf.gz")
    assert result.code == 0
    assert "no index" in result.err
    assert [row[0] for row in annotated(tmp_path / "out.vcf.gz")] == lines
    assert not (tmp_path / "out.vcf.gz.tbi").exists()
    assert score(text(lines[::-1]), "--force", out="out.vcf.gz").code == 0
    assert (tmp_path / "out.vcf.gz.tbi").exists()


def test_46_a_contig_that_only_the_fasta_has(score: Score, genome: Genome, tmp_path: Path) -> None:
    header = HEADER.replace("##contig=<ID=chrB,length=9000>\n", "")
    result = score(text([*good(genome), *good(genome, contig="chrB")], header))
    assert result.code == 0
    assert result.err.count("declares no contig chrB") == 1
    assert all(row[1] == ["OK"] for row in annotated(tmp_path / "out.vcf"))
    with VcfReader(tmp_path / "out.vcf") as reader:
        assert reader.contigs == {"chrA": 10_000, "chrB": 9_000}


def test_47_bcf(score: Score, genome: Genome, tmp_path: Path) -> None:
    lines = [each.replace("q10\tX=1.50;Y", "PASS\t.") for each in good(genome)]
    (tmp_path / "plain.vcf").write_text(text(lines))
    pysam.bcftools.view("-Ob", "-o", str(tmp_path / "x.bcf"), str(tmp_path / "plain.vcf"), catch_stdout=False)
    assert score((tmp_path / "x.bcf").read_bytes(), out="out.bcf").code == 0
    rows = annotated(tmp_path / "out.bcf")
    assert [row[1] for row in rows] == [["OK"]] * len(lines)


def test_keys_that_bcf_cannot_hold_are_told_before_any_scoring(score: Score, genome: Genome, tmp_path: Path) -> None:
    result = score(text(good(genome)), out="out.bcf")
    assert result.code == 2
    lacks = "BCF needs every key declared, and the header lacks ##FILTER=<ID=q10> and 2 more"
    assert result.err == f"{tmp_path}/out.bcf: {lacks}; write .vcf.gz, or declare it in the input's header\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
    plain = [each.replace("q10\tX=1.50;Y", "PASS\tGM_LLR=1") for each in good(genome)]
    assert score("\ufeff" + text(plain), out="own.bcf").code == 0  # ours, and a mark that htslib does not read
    wrong = score(text([*plain, line("chrA", "x1", "A", "C")]), out="bad.bcf")
    assert wrong.code == 2
    assert "POS=x1" in wrong.err


def test_32_contig_names(score: Score, genome: Genome, tmp_path: Path) -> None:
    lines = [each.replace("chrA", "A", 1) for each in good(genome)]
    header = HEADER.replace("=chr", "=")
    refused = score(text(lines, header))
    assert refused.code == 2
    assert "no contig in common: here A; in" in refused.err
    assert "chrA, chrB; pass --contig-aliases auto" in refused.err
    assert score(text(lines, header), "--contig-aliases", "auto").code == 0
    assert [row[:2] for row in annotated(tmp_path / "out.vcf")] == [(each, ["OK"]) for each in lines]
    other_length = header.replace("length=10000", "length=10001")
    assert score(text(lines, other_length), "--contig-aliases", "auto", "--force").code == 2


# number, what becomes of a good file, the line named, words of the message
REFUSED: list[tuple[int, Callable[[str], str | bytes], int | None, str]] = [
    (45, lambda t: t.split("INFO\n", 1)[1], 1, "the header is missing"),
    (45, lambda t: t.replace("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", ""), 4, "no #CHROM line"),
    (45, lambda t: "", None, "the file is empty"),
    (48, lambda t: t.replace("\t1000\t", "\t1e3\t"), 5, "POS=1e3"),
    (48, lambda t: t.replace("\t1000\t", "\t1000.0\t"), 5, "POS=1000.0"),
    (51, lambda t: t[: t.rindex("\t1e2")], 44, "5 columns where the header has 8"),
    (51, lambda t: t.replace("\tid1000\t", " id1000 "), 5, "one tab between columns"),
    (51, lambda t: t.replace("chrA\t1100", "\nchrA\t1100"), 6, "blank"),
    (51, lambda t: t + "\n", 45, "blank"),
    (51, lambda t: gzip.compress(t.encode())[:-40], None, "cut short"),
    (51, lambda t: t.encode().replace(b"\t1200\t", b"\t12\x00\x00\t"), 7, "POS=12"),
]


@pytest.mark.parametrize(("number", "spoil", "at", "words"), REFUSED)
def test_a_bad_file_is_refused_with_its_line(
    score: Score,
    genome: Genome,
    tmp_path: Path,
    number: int,
    spoil: Callable[[str], str | bytes],
    at: int | None,
    words: str,
) -> None:
    result = score(spoil(text(good(genome))))
    assert result.code == 2
    message = result.err.strip().splitlines()[-1]
    assert f"in.vcf:{at}: " in message if at else "in.vcf: " in message
    assert words in message
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_51_cut_bgzip(score: Score, genome: Genome, tmp_path: Path) -> None:
    with pysam.BGZFile(str(tmp_path / "whole"), "wb", None) as out:
        out.write(text(good(genome)).encode())
    whole = (tmp_path / "whole").read_bytes()
    for cut in (whole[:-28], whole[:200]):
        result = score(cut)
        assert result.code == 2
        assert "in.vcf: " in result.err
        assert not (tmp_path / "out.vcf").exists()


def test_63_an_output_that_exists(score: Score, genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "out.vcf").write_text("old")
    result = score(text(good(genome)))
    assert result.code == 2
    assert "out.vcf: the output exists" in result.err
    assert (tmp_path / "out.vcf").read_text() == "old"
    assert score(text(good(genome)), "--force").code == 0
    assert len(annotated(tmp_path / "out.vcf")) == 40
