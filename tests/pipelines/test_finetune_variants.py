"""`finetune variants` by every method, from every kind of table and split, through the command line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
import torch
from world import RunCli, World

import genomamba
from genomamba.data.pairs import allele_pair, stack_pairs
from genomamba.data.reference import Reference
from genomamba.genome.variant import Variant
from genomamba.model.heads import SequencePair, VariantClassifier

GENES = "--train AAA1 BBB2 --valid CCC3 --test DDD4".split()
QUICK = "--window 64 --batch-size 16 --epochs 3 --optimizer.lr 1e-2 --device cpu".split()


@pytest.fixture(scope="module")
def rows(world: World) -> list[dict[str, str]]:
    """The world's variants as rows of a table."""
    found = []
    for line in world.labelled.read_text().splitlines():
        if line.startswith("#"):
            continue
        contig, pos, _, ref, alt, _, _, info = line.split("\t")
        values = dict(word.split("=") for word in info.split(";"))
        gene = values["GENEINFO"].partition(":")[0]
        found.append(
            {"chrom": contig, "pos": pos, "ref": ref, "alt": alt, "label": values["CLNSIG"], "gene": gene}
            | {"part": {"AAA1": "train", "BBB2": "train", "CCC3": "valid", "DDD4": "test"}[gene]}
        )
    return found


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns["pos"] = [int(row["pos"]) for row in rows]  # type: ignore[misc]
        pq.write_table(pa.table(columns), path)
        return path
    mark = "\t" if path.suffix == ".tsv" else ","
    path.write_text("\n".join(mark.join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]) + "\n")
    return path


def evaluate(run_cli: RunCli, world: World, source: Path, model: Path, out: Path, *words: object) -> dict:
    given = ("-r", world.reference, "-i", source, "-m", model, "-o", out, "--device", "cpu")
    result = run_cli("evaluate", "variants", *given, *words)
    assert result.code == 0, result.err
    return json.loads(out.read_text())


@pytest.mark.parametrize("method", ["full", "head", "lora", "probe", "boosting", "scratch"])
def test_every_method_learns_and_leaves_a_plain_folder(
    run_cli: RunCli, world: World, tmp_path: Path, method: str
) -> None:
    start: tuple[object, ...] = ("-m", world.pretrained)
    how = {"boosting": "--method probe --probe.kind boosting --probe.trees 20".split()}.get(
        method, ["--method", method]
    )
    if method == "scratch":
        start, how = (), "--architecture.d_model 16 --architecture.n_layer 1 --patience 2".split()
    words = ("-r", world.reference, "-i", world.labelled, *start, *how, *GENES, *QUICK)
    result = run_cli("finetune", "variants", *words, "-o", tmp_path / "m")
    assert result.code == 0, result.err
    found = evaluate(run_cli, world, world.labelled, tmp_path / "m", tmp_path / "e.json")
    assert found["overall"]["AUROC"][0] > 0.8
    after = genomamba.load_model(tmp_path / "m")
    assert isinstance(after, VariantClassifier)
    if method in ("scratch", "full"):
        return
    before = genomamba.load_model(world.pretrained)
    changed = [
        name for name, tensor in before.state_dict().items() if not torch.equal(after.state_dict()[name], tensor)
    ]
    if method == "lora":
        assert changed
        assert all(name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight")) for name in changed)
    else:
        assert not changed  # so the zero-shot figure is the pretrained model's


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet"])
def test_tables_with_words_of_ones_own_and_splits_in_a_column(
    run_cli: RunCli, world: World, rows: list[dict[str, str]], tmp_path: Path, form: str
) -> None:
    mapped = [row | {"label": {"Pathogenic": "bad", "Benign": "fine"}[row["label"]]} for row in rows]
    table = write(tmp_path / f"t.{form}", mapped)
    (tmp_path / "map.tsv").write_text("bad\t1\nfine\t0\n")
    words = ("-r", world.reference, "-i", table, "-m", world.pretrained, "--method", "probe", *QUICK)
    split = ("--split-by", "column", "--split-column", "part", "--labels", tmp_path / "map.tsv")
    result = run_cli("finetune", "variants", *words, *split, "-o", tmp_path / "m")
    assert result.code == 0, result.err
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    assert made["counts"] == {"train": 80, "valid": 40, "test": 40, "unused": 0}
    assert made["labels"] == {"bad": 1, "fine": 0}
    # the model remembers its splits and its words
    found = evaluate(run_cli, world, table, tmp_path / "m", tmp_path / "e.json", "--strata", "gene", "type", "part")
    assert (found["variants"], found["positives"]) == (40, 20)
    assert [row["stratum"] for row in found["strata"]["gene"]] == ["DDD4"]
    assert [row["stratum"] for row in found["strata"]["part"]] == ["test"]
    types = {row["stratum"]: row for row in found["strata"]["type"]}
    assert types["SNV"]["AUROC"] == types["SNV"]["MCC"] == [None, None, None]  # in this world no SNV is pathogenic


def test_splits_by_contig_and_by_block(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    words = ("-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "--method", "probe", *QUICK)
    by_contig = ("--split-by", "contig", "--train", "chrA", "--valid", "chrB")
    result = run_cli("finetune", "variants", *words, *by_contig, "-o", tmp_path / "contig")
    assert result.code == 0, result.err
    made = json.loads((tmp_path / "contig" / "provenance.json").read_text())
    assert made["counts"] == {"train": 80, "valid": 80, "test": 0, "unused": 0}
    result = run_cli(*("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", tmp_path / "contig"))
    assert (result.code, result.err.splitlines()[-1][:6]) == (2, "genes:")

    shares = "--split-by block --block-size 400 --valid-share 0.3 --test-share 0.3 --seed 1".split()
    result = run_cli("finetune", "variants", *words, *shares, "-o", tmp_path / "block")
    assert result.code == 0, result.err
    made = json.loads((tmp_path / "block" / "provenance.json").read_text())
    assert sum(made["counts"].values()) == 160
    assert made["counts"]["unused"] > 0  # at the edges of blocks
    found = evaluate(run_cli, world, world.labelled, tmp_path / "block", tmp_path / "e.json")
    assert found["variants"] == made["counts"]["test"]
    result = run_cli(
        *("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", tmp_path / "block"),
        *("--genes", "train"),
    )
    assert result.code == 2
    assert "genes=train: the model was trained or calibrated on it" in result.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--split-by block --train AAA1", "split_by: blocks have no names; leave out --train"),
        ("--split-by block --valid-share 0", "valid_share=0.0: it must lie between 0 and what test leaves"),
        ("--split-by block --block-size 64", "block_size=64: a block must hold two windows at least"),
        ("--split-by contig --train chrA", "valid: no contigs are given; name some: --valid CONTIG [CONTIG …]"),
        (
            "--split-by contig --train chrA --valid chrZ",
            "valid=chrZ: no labelled variant has this contig; there is chr",
        ),
        ("--split-by column --split-column CLNSIG --train a --valid b", "train=a: no labelled variant has this CLNSIG"),
        ("--train AAA1 --valid BBB2 --method lora --lora.targets [q_proj]", "targets=q_proj: no Linear of that name"),
        ("--architecture.d_model 8", "architecture: a pretrained model has its own"),
        ("--lora.rank 2", "lora.rank=2: it counts only with --method lora; give that too, or leave this out"),
        ("--method lora --probe.trees 9", "probe.trees=9: it counts only with --method probe; give that too, or leav"),
        ("--train AAA1 --valid BBB2 --labels nowhere", "nowhere: no such file"),
    ],
)
def test_options_that_cannot_be_are_named(run_cli: RunCli, world: World, tmp_path: Path, words: str, line: str) -> None:
    given = ("-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "-o", tmp_path / "m", *QUICK)
    result = run_cli("finetune", "variants", *given, *words.split())
    assert result.code == 2
    assert result.err.removeprefix(f"{world.labelled}: ").startswith(line), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_without_a_pretrained_model_everything_is_trained(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    words = ("-r", world.reference, "-i", world.labelled, "-o", tmp_path / "m", *GENES, "--method", "head")
    result = run_cli("finetune", "variants", *words)
    assert (result.code, result.err[:19]) == (2, "method=head: withou")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"label": "NaN"}, ":2: label=NaN: this is no label"),  # 52
        ({"label": ""}, ":2: label=: this is no label"),
        ({"pos": "1.86e3"}, ":2: pos=1.86e3: pos is not a position"),  # 48
    ],
)
def test_bad_rows_are_refused_by_line(
    run_cli: RunCli, world: World, rows: list[dict[str, str]], tmp_path: Path, change: dict[str, str], line: str
) -> None:
    table = write(tmp_path / "t.csv", [rows[0] | change, *rows[1:]])
    words = ("-r", world.reference, "-i", table, "-m", world.pretrained, "-o", tmp_path / "m", *GENES)
    result = run_cli("finetune", "variants", *words)
    assert result.code == 2
    assert result.err.startswith(f"{table}{line}"), result.err
    assert not (tmp_path / "m").exists()


def test_leaks_and_classes_are_refused(
    run_cli: RunCli, world: World, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    words = ("-r", world.reference, "-m", world.pretrained, "-o", tmp_path / "m", *GENES, "--window", 64)
    leaky = write(tmp_path / "leaky.csv", [*rows, rows[0] | {"gene": "CCC3"}])  # 54
    result = run_cli("finetune", "variants", "-i", leaky, *words)
    assert result.code == 2
    assert result.err.startswith(f"{leaky}: train (line 2) and valid (line 162) hold the same variant")
    assert result.err.count("\n") == 1
    one = write(tmp_path / "one.csv", [row | {"label": "1"} if row["gene"] == "CCC3" else row for row in rows])  # 53
    result = run_cli("finetune", "variants", "-i", one, *words)
    assert result.code == 2
    assert "split=valid: the split has 40 variants of class 1 and 0 of class 0" in result.err


OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


def odd_records(genome: dict[str, str]) -> dict[str, str]:
    """Labelled records of the test gene by what becomes of them; their numbers are those of the catalogue."""
    at = 5_020
    base, two = genome["chrB"][at - 1], genome["chrB"][at - 1 : at + 1]

    def line(pos: int, ref: str, alt: str, contig: str = "chrB", label: str = "Benign") -> str:
        return f"{contig}\t{pos}\t.\t{ref}\t{alt}\t.\t.\tCLNSIG={label};GENEINFO=DDD4:1"

    return {
        "SKIP_REF_MISMATCH": line(at, OTHER[base], base),  # 35
        "SKIP_SYMBOLIC": line(at, base, "<DEL>"),  # 38
        "SKIP_SPANNING_DELETION": line(at, base, "*"),
        "SKIP_NO_ALT": line(at, base, "."),
        "SKIP_ALT_EQUALS_REF": line(at, base, base),  # 40
        "SKIP_AMBIGUOUS_REF": line(at, "N", "A"),  # 41
        "SKIP_OUT_OF_RANGE": line(0, "A", "C"),  # 48
        "SKIP_TOO_LONG": line(at, base, base + "ACGT" * 9),  # 49
        "SKIP_NO_CONTIG": line(at, "A", "C", contig="chrZ"),  # 32
        "label (one value for several ALTs)": line(at, base, f"{OTHER[base]},{base}{base}T"),  # 37
        "label Uncertain": line(at, base, OTHER[base], label="Uncertain"),  # 52
        "scored": line(at, two.lower(), (OTHER[two[0]] + OTHER[two[1]]).lower()),  # 39, 42
        "scored at the edge": line(3, genome["chrB"][2], OTHER[genome["chrB"][2]]),  # 50
    }


def test_odd_records_are_left_out_and_counted(
    run_cli: RunCli, world: World, genome: dict[str, str], tmp_path: Path
) -> None:
    odd = odd_records(genome)
    source = tmp_path / "odd.vcf"
    source.write_text(world.labelled.read_text() + "\n".join(odd.values()) + "\n")  # not in order: 44
    words = ("-r", world.reference, "-i", source, "-m", world.pretrained, "--method", "probe", *GENES, *QUICK)
    result = run_cli("finetune", "variants", *words, "-o", tmp_path / "m")
    assert result.code == 0, result.err
    found = evaluate(run_cli, world, source, tmp_path / "m", tmp_path / "e.json")
    counted = {name: 2 if "several" in name else 1 for name in odd if not name.startswith("scored")}
    assert found["left_out"] == counted
    assert found["variants"] == 42


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("##fileformat=VCFv4.2\n", "").replace("#CHROM", "CHROM"), "odd.vcf:"),  # 45
        (
            lambda text: text.replace("chrA\t", "1\t").replace("chrB\t", "2\t"),
            "no contig in common: here 1, 2; in ",
        ),  # 32
        (lambda text: text.replace("chrA\t1", "chrA\t2"), "wrong assembly? REF disagrees with "),  # 35
        (lambda text: text.replace("\tA\t", " A ", 1), "odd.vcf:"),  # 51
        (lambda text: text[: len(text) // 2] + "\n\n" + text[len(text) // 2 :], "odd.vcf:"),
    ],
    ids=["no header", "no common contig", "wrong assembly", "spaces", "blank line"],
)
@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_files_that_cannot_be_used_are_refused(
    run_cli: RunCli, world: World, tmp_path: Path, command: str, damage: Callable[[str], str], words: str
) -> None:
    source = tmp_path / "odd.vcf"
    source.write_text(damage(world.labelled.read_text()))
    given = ("-r", world.reference, "-i", source, "-o", tmp_path / "out.json")
    more = ("-m", world.pretrained, *GENES) if command == "finetune" else ("-m", world.classifier)
    result = run_cli(command, "variants", *given, *more)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["odd.vcf"]


def test_bcf_and_gzip_are_read(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    figures = []
    with (
        pysam.VariantFile(str(world.labelled)) as source,
        pysam.VariantFile(str(tmp_path / "a.bcf"), "wb", header=source.header) as packed,
    ):  # 47
        for record in source:
            packed.write(record)
    (tmp_path / "a.vcf.gz").write_bytes(gzip.compress(world.labelled.read_bytes()))
    for source_file in (world.labelled, tmp_path / "a.bcf", tmp_path / "a.vcf.gz"):
        out = tmp_path / "e.json"
        figures.append(evaluate(run_cli, world, source_file, world.classifier, out, "--force")["overall"])
    assert figures[0] == figures[1] == figures[2]


@pytest.mark.parametrize("method", ["probe", "full"])
def test_class_weights_take_the_prior_away(
    run_cli: RunCli, world: World, rows: list[dict[str, str]], tmp_path: Path, method: str
) -> None:
    """Of one positive to four negatives that nothing tells apart, training learns the odds: 1:4, or with weights 1:1.

    A probe that may use hardly a feature learns them exactly.
    """
    snvs = [row for row in rows if len(row["alt"]) == 1]
    some = [row | {"label": "Benign" if number % 5 else "Pathogenic"} for number, row in enumerate(snvs)]
    table = write(tmp_path / "t.csv", some)
    common = ("-r", world.reference, "-i", table, "-m", world.pretrained, "--window", 32, "--device", "cpu")
    split = ("--split-by", "column", "--split-column", "part", "--method", method, "--epochs", 1)
    # Clipped, a gradient would not tell how large it was.
    few = "--batch-size 4 --optimizer.lr 1e-2 --optimizer.clip 1000"
    how = {"probe": "--probe.strengths [1e-4]", "full": few}[method].split()
    variants = [Variant(row["chrom"], int(row["pos"]) - 1, row["ref"], row["alt"]) for row in some]
    reference = Reference.open(world.reference)
    pairs = SequencePair(*stack_pairs([allele_pair(reference, variant, 32) for variant in variants], strands=2))
    logits = {}
    for weights in ("none", "balanced"):
        out = tmp_path / weights
        result = run_cli("finetune", "variants", *common, *split, *how, "--class-weights", weights, "-o", out)
        assert result.code == 0, result.err
        model = genomamba.load_model(out)
        assert isinstance(model, VariantClassifier)
        with torch.inference_mode():
            logits[weights] = float(model.eval()(pairs)[0].mean())
    if method == "probe":
        assert logits["none"] == pytest.approx(math.log(1 / 4), abs=0.01)
        assert logits["balanced"] == pytest.approx(0, abs=0.01)
    else:
        assert logits["none"] + 0.7 < logits["balanced"] < logits["none"] + 2 * math.log(4)
