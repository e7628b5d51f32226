"""The commands one after the other on a small world, as the demo runs them on real data."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pysam
import pytest
import yaml
from world import RunCli, World, write_reference, write_vcf

from genomamba.data.reference import Reference
from genomamba.genome.variant import Variant
from genomamba.model.folder import load_model
from genomamba.scoring.variants import VariantScorer


def test_pretraining_leaves_a_model_its_curve_and_what_made_it(world: World) -> None:
    names = {path.name for path in world.pretrained.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "provenance.json"} | {
        *("metrics.csv", "validation.tsv", "run.yaml", "checkpoints", "training.bed", "valid.bed")
    }
    made = json.loads((world.pretrained / "provenance.json").read_text())
    assert made["held_out"] == {"valid": ["chrB:1-900"], "test": []}
    assert made["trained_on_bases"] == 19_000 - 900
    assert made["reference"]["fingerprint"] == Reference.open(world.reference).fingerprint
    with (world.pretrained / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    last = [float(row["valid_bits_per_base"]) for row in rows if row["valid_bits_per_base"]][-1]
    assert last == pytest.approx(made["valid_bits_per_base"], abs=1e-6)
    assert 1.9 < last < 2.3  # random bases hold 2 bits, and there is nothing to learn in them
    assert f"{made['valid_bits_per_base']:.4f} bits per base" in (world.pretrained / "README.md").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    small = "--model.d_model 16 --model.n_layer 1 --window 64 --batch-size 2 --steps 3 --validate-every 3".split()
    for name, seed, workers in (("a", 1, 0), ("b", 1, 1), ("c", 2, 0)):
        result = run_cli(
            *("pretrain", "-r", world.reference, "-o", tmp_path / name, "--seed", seed, "-@", workers, *small)
        )
        assert result.code == 0, result.err
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_training_repeats_from_its_own_resolved_configuration(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("pretrain", "-c", world.pretrained / "run.yaml", "-o", tmp_path / "again")
    assert result.code == 0, result.err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        world.pretrained / "model.safetensors"
    ).read_bytes()


def test_pretraining_learns_what_there_is_to_learn(run_cli: RunCli, tmp_path: Path) -> None:
    unit = "ACGGTCATTGCA"
    (tmp_path / "g.fa").write_text(">repeat\n" + unit * 800 + "\n")
    words = "--model.d_model 32 --model.n_layer 1 --window 96 --batch-size 8 --steps 80 --validate-every 80"
    result = run_cli(
        *("pretrain", "-r", tmp_path / "g.fa", "-o", tmp_path / "out", "--valid", "repeat:1-960", *words.split())
    )
    assert result.code == 0, result.err
    bits = json.loads((tmp_path / "out" / "provenance.json").read_text())["valid_bits_per_base"]
    assert bits < 0.3  # a repeat of 12 bases is certain once it has been seen


def test_scores_stand_beside_every_record_in_order(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "scored.vcf.gz"
    result = run_cli("score", "-r", world.reference, "-i", world.labelled, "-m", world.classifier, "-o", out)
    assert result.code == 0, result.err
    given = [line for line in world.labelled.read_text().splitlines() if not line.startswith("#")]
    with pysam.VariantFile(str(out)) as scored:
        records = list(scored)
    assert [(r.chrom, r.pos, r.id, r.ref) for r in records] == [
        (f[0], int(f[1]), f[2], f[3]) for f in (line.split("\t") for line in given)
    ]
    with pysam.BGZFile(str(out)) as stream:
        lines = [line.decode() for line in stream if not line.startswith(b"#")]
    assert [line.partition(";GENOMAMBA=")[0] for line in lines] == given
    assert f"{len(given)} scored" in result.err

    reference = Reference.open(world.reference)
    made = json.loads((world.classifier / "provenance.json").read_text())
    scorer = VariantScorer(
        load_model(world.classifier),
        reference,
        window=made["window"],
        batch_size=7,
        device=__import__("torch").device("cpu"),
    )
    variants = [Variant(r.chrom, r.start, r.ref, r.alts[0]) for r in records]
    for record, score in zip(records, scorer(variants), strict=True):
        assert record.info["GM_LLR"][0] == pytest.approx(score.llr, rel=1e-3, abs=1e-4)
        assert record.info["GM_PROB"][0] == pytest.approx(score.probability, rel=1e-3, abs=1e-4)
        allele, model, llr, probability, status = record.info["GENOMAMBA"][0].split("|")
        assert (allele, model, status) == (record.alts[0], "classifier", "OK")
        assert float(llr) == pytest.approx(score.llr, rel=1e-3, abs=1e-4)
        assert float(probability) == pytest.approx(score.probability, rel=1e-3, abs=1e-4)


def test_scores_do_not_depend_on_batch_size_or_order_of_records(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    lines = world.labelled.read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    records = lines[len(header) :]
    (tmp_path / "shuffled.vcf").write_text("\n".join([*header, *np.random.default_rng(0).permutation(records)]) + "\n")
    scores = []
    for source, batch in ((world.labelled, 64), (world.labelled, 3), (tmp_path / "shuffled.vcf", 10)):
        out = tmp_path / f"{batch}.vcf"
        words = ("score", "-r", world.reference, "-i", source, "-m", world.classifier, "-o", out, "--batch-size", batch)
        assert run_cli(*words).code == 0
        with pysam.VariantFile(str(out)) as scored:
            scores.append({r.id: (r.info["GM_LLR"][0], r.info["GM_PROB"][0]) for r in scored})
    for other in scores[1:]:
        assert other.keys() == scores[0].keys()
        for name, pair in scores[0].items():
            assert other[name] == pytest.approx(pair, rel=1e-4, abs=1e-5)


def test_both_spellings_of_an_indel_get_one_score(
    world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str]
) -> None:
    sequence = genome["chrA"]
    at = next(i for i in range(500, 9000) if sequence[i] == sequence[i + 1] == sequence[i + 2] != sequence[i - 1])
    base = sequence[at]
    left = f"chrA\t{at}\tleft\t{sequence[at - 1]}{base}\t{sequence[at - 1]}\t.\t.\t."
    right = f"chrA\t{at + 2}\tright\t{base}{base}\t{base}\t.\t.\t."
    source = write_vcf(tmp_path / "two.vcf", [left, right], {"chrA": len(sequence)})
    out = tmp_path / "out.vcf"
    assert run_cli("score", "-r", world.reference, "-i", source, "-m", world.pretrained, "-o", out).code == 0
    with pysam.VariantFile(str(out)) as scored:
        first, second = (record.info["GM_LLR"][0] for record in scored)
    assert first == second


def test_a_language_model_gives_ratios_and_no_probabilities(world: World, run_cli: RunCli) -> None:
    result = run_cli("score", "-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "-o", "-")
    assert result.code == 0, result.err
    records = [line for line in result.out.splitlines() if not line.startswith("#")]
    assert len(records) == 160
    assert all("GM_LLR=" in record and record.endswith("GM_PROB=.") for record in records)


def test_evaluate_prints_what_it_writes_and_what_the_page_shows(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    evaluation, page = tmp_path / "evaluation.json", tmp_path / "report.html"
    words = ("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.classifier)
    result = run_cli(*words, "-o", evaluation)
    assert result.code == 0, result.err
    figures = json.loads(evaluation.read_text())
    assert figures["genes"] == ["DDD4"]
    assert (figures["variants"], figures["positives"]) == (40, 20)
    shown = run_cli("report", "-m", world.classifier, "-e", evaluation, "-o", page)
    assert shown.code == 0, shown.err
    html = page.read_text()
    printed = {"AUROC", "AUPRC", "MCC", "Brier", "ECE"}
    assert figures["overall"].keys() == printed
    for value, low, high in [*figures["overall"].values(), *figures["consequence_only"].values()]:
        text = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        assert text in result.out
        assert text in html
    for row in figures["within"]:
        text = f"{row['AUROC'][0]:.3f} [{row['AUROC'][1]:.3f}, {row['AUROC'][2]:.3f}]"
        assert text in result.out
        assert text in html
    # the consequence says nothing here: each class holds as many of either label
    assert figures["consequence_only"]["AUROC"][0] == pytest.approx(0.5)
    assert html.count("<svg") == 5
    assert not re.search(r'(src|href)="(?!#)', html)  # self-contained


def test_evaluate_refuses_genes_that_training_has_seen(world: World, run_cli: RunCli) -> None:
    words = ("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.classifier)
    result = run_cli(*words, "--genes", "AAA1", "DDD4")
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        "genes=AAA1: the model was trained or calibrated on it; measure on other genes"
    )
    result = run_cli(*words, "--genes", "DDD4", "DDD5")
    assert result.code == 2
    message = f"{world.labelled}: genes=DDD5: no labelled variant has this gene; there is DDD4 (did you mean that?)"
    assert result.err.splitlines()[-1].startswith(message)


def test_evaluate_refuses_variants_of_another_name_that_training_has_seen(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed.vcf"
    renamed.write_text(world.labelled.read_text().replace("GENEINFO=AAA1", "GENEINFO=NEW"))
    words = ("evaluate", "variants", "-r", world.reference, "-i", renamed, "-m", world.classifier)
    result = run_cli(*words, "--genes", "NEW")
    assert result.code == 2
    assert "genes=NEW: 40 of 40 variants lie in windows that training or validation has seen" in result.err


def test_evaluate_needs_no_training_variants_in_its_input(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    lines = world.labelled.read_text().splitlines()
    kept = [line for line in lines if line.startswith("#") or "GENEINFO=DDD4" in line]
    (tmp_path / "own.vcf").write_text("\n".join(kept) + "\n")
    both = []
    for source in (world.labelled, tmp_path / "own.vcf"):
        out = tmp_path / f"{source.stem}.json"
        words = ("evaluate", "variants", "-r", world.reference, "-i", source, "-m", world.classifier, "-o", out)
        assert run_cli(*words).code == 0
        figures = json.loads(out.read_text())
        both.append({key: figures[key] for key in ("overall", "consequence_only", "within", "curves")})
    assert both[0] == both[1]


def test_report_refuses_figures_of_another_model(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    evaluation = tmp_path / "e.json"
    words = ("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.classifier)
    assert run_cli(*words, "-o", evaluation).code == 0
    evaluation.write_text(json.dumps(json.loads(evaluation.read_text()) | {"weights": "0" * 32}))
    result = run_cli("report", "-m", world.classifier, "-e", evaluation, "-o", tmp_path / "r.html")
    assert result.code == 2
    assert "its figures are not of the model" in result.err
    assert not (tmp_path / "r.html").exists()


def test_overlapping_hold_outs_and_regions_off_the_contig_are_refused(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    words = ("pretrain", "-r", world.reference, "-o", tmp_path / "o")
    overlap = run_cli(*words, "--valid", "chrB:1-900", "--test", "chrB:500-1500")
    assert (overlap.code, overlap.err) == (
        2,
        "test=chrB:500-1500: it overlaps the validation region chrB:1-900; hold out each base once\n",
    )
    off = run_cli(*words, "--test", "chrB:8000-999999")
    assert off.code == 2
    assert "test=chrB:8000-999999: the contig has 9000 bases" in off.err
    assert not (tmp_path / "o").exists()


def test_a_run_that_fails_leaves_what_stood_there(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("finetune", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "-o", out)
    small = "--train AAA1 --valid BBB2 --window 32 --epochs 1".split()
    assert run_cli(*words, *small).code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    failed = run_cli(*words, *small, "--force", "--optimizer.lr", "1e30", "--optimizer.clip", "1e30")
    assert failed.code == 1
    assert "the loss is nan at step" in failed.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_run_never_replaces_its_own_inputs(world: World, run_cli: RunCli) -> None:
    words = ("finetune", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.pretrained)
    result = run_cli(*words, "-o", world.pretrained, "--force", *"--train AAA1 --valid BBB2".split())
    assert result.code == 2
    assert "lies in it; choose another -o" in result.err
    assert (world.pretrained / "model.safetensors").exists()


def test_evaluate_regions_agrees_with_the_figure_of_training(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    bed = tmp_path / "valid.bed"
    bed.write_text("chrB\t0\t900\theld_out\n")
    result = run_cli("evaluate", "regions", "-r", world.reference, "-b", bed, "-m", world.pretrained)
    assert result.code == 0, result.err
    made = json.loads((world.pretrained / "provenance.json").read_text())
    row = result.out.splitlines()[1].split("\t")
    assert row[:4] == ["chrB", "0", "900", "held_out"]
    assert float(row[5]) == pytest.approx(made["valid_bits_per_base"], abs=1e-4)
    assert int(row[4]) == 900 - 8  # eight windows of 128, and the first base of each is given
    assert f"\n0 of the regions' bases are in {world.pretrained}/training.bed, what it was trained on" in result.err
    bed.write_text("chrB\t0\t1000\n")
    result = run_cli("evaluate", "regions", "-r", world.reference, "-b", bed, "-m", world.pretrained)
    assert "\n100 of the regions' bases are in " in result.err


def test_what_is_held_out_twice_counts_once(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "valid.bed").write_text("chrB\t100\t500\nchrB\t0\t300\n")
    small = "--model.d_model 8 --model.n_layer 1 --window 50 --batch-size 2 --steps 1 --validate-every 1".split()
    words = ("--valid", "chrB:1-200", "--valid-bed", tmp_path / "valid.bed", "--device", "cpu")
    result = run_cli("pretrain", "-r", world.reference, *small, *words, "-o", tmp_path / "run")
    assert result.code == 0, result.err
    assert "valid: 500 bases held out, 0 of them in training windows" in result.err
    assert (tmp_path / "run/valid.bed").read_text() == "chrB\t0\t200\nchrB\t200\t500\n"
    (row,) = [line for line in (tmp_path / "run/validation.tsv").read_text().splitlines() if "\tchrB\tall\t" in line]
    assert int(row.split("\t")[3]) == 500 - 10


@pytest.mark.parametrize("command", ["pretrain", "finetune", "score", "evaluate", "report"])
def test_an_output_that_exists_is_refused_and_replaced_with_force(
    world: World, run_cli: RunCli, tmp_path: Path, command: str
) -> None:
    out = tmp_path / {"score": "o.vcf", "evaluate": "o.json", "report": "o.html"}.get(command, "o")
    evaluation = tmp_path / "e.json"
    evaluate = ("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.classifier, "-o")
    small = "--model.d_model 8 --model.n_layer 1 --window 32 --batch-size 2 --steps 1 --validate-every 1".split()
    words = {
        "pretrain": ("pretrain", "-r", world.reference, *small, "-o"),
        "finetune": (
            *("finetune", "variants", "-r", world.reference, "-i", world.labelled, "-m", world.pretrained),
            *"--train AAA1 --valid BBB2 --window 32 --epochs 1 -o".split(),
        ),
        "score": ("score", "-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "-o"),
        "evaluate": evaluate,
        "report": ("report", "-m", world.classifier, "-e", evaluation, "-o"),
    }[command]
    if command == "report":
        assert run_cli(*evaluate, evaluation).code == 0
    assert run_cli(*words, out).code == 0
    before = out.stat().st_mtime_ns
    again = run_cli(*words, out)
    assert again.code == 2
    assert again.err.startswith(f"{out}: the ")
    assert "--force" in again.err
    assert out.stat().st_mtime_ns == before
    assert run_cli(*words, out, "--force").code == 0
    assert out.stat().st_mtime_ns != before


def test_force_never_removes_a_folder_that_is_not_a_run(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("years of work")
    result = run_cli("pretrain", "-r", world.reference, "-o", precious, "--force")
    assert result.code == 2
    assert "not a run of ours" in result.err
    assert (precious / "chapter1.tex").exists()


def test_resolved_configuration_is_kept(world: World) -> None:
    config = yaml.safe_load((world.classifier / "run.yaml").read_text())
    assert config["train"] == ["AAA1", "BBB2"]
    assert config["window"] == 64
    assert config["head"]["d_hidden"] == 64


def test_pretraining_on_several_genomes_with_every_kind_of_split(
    world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str]
) -> None:
    short = {f"s{number}": genome["chrA"][100 * number : 100 * number + 20 + number] for number in range(5)}
    write_reference(tmp_path / "short.fa", short)
    (tmp_path / "valid.bed").write_text("chrA\t0\t200\n")
    (tmp_path / "test.bed").write_text("chrB\t0\t500\n")
    small = "--model.d_model 8 --model.n_layer 1 --window 64 --batch-size 4 --steps 3 --validate-every 3 --step-log"
    held_out = f"--valid-bed {tmp_path}/valid.bed --test-bed {tmp_path}/test.bed --valid-blocks 0.1 --block-size 1000"
    result = run_cli(
        *("pretrain", "-r", world.reference, tmp_path / "short.fa", "--mixture", 1, 1, "-o", tmp_path / "out"),
        *("--leak-check", "--max-n-frac", 0.5, *small.split(), *held_out.split()),
    )
    assert result.code == 0, result.err
    steps = (tmp_path / "out" / "steps.tsv").read_text()
    assert re.search(r"s\d:\d+-\d+\([+-]\)\+s\d", steps)  # short contigs share rows
    assert "chr" in steps
    assert re.search(r"valid: [\d,]+ bases held out, 0 of them in training windows; \d", result.err)
    assert "test: 500 bases held out, 0 of them in training windows; 0.00 %" in result.err
    leaks = json.loads((tmp_path / "out" / "provenance.json").read_text())["leaks"]
    assert leaks["shared"] == {"valid": 0, "test": 0}
    result = run_cli("pretrain", "-r", world.reference, "--mixture", 1, 1, "-o", tmp_path / "no", *small.split())
    assert result.code == 2
    assert "1 genomes need as many shares" in result.err


def test_a_context_model_of_the_same_regions_stands_beside_a_streamed_figure(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / "held.bed").write_text("chrB\t0\t900\n")
    words = ("evaluate", "regions", "-r", world.reference, "-b", tmp_path / "held.bed", "-m", world.pretrained)
    figures = []
    for window in (50, 900):
        result = run_cli(*words, "--stream", "--context-model", "--window", window)
        assert result.code == 0, result.err
        assert "over 899 bases, streamed" in result.err
        figures.append(result.out)
        found = re.findall(r"order-(\d+) context model, (frozen|adaptive): ([\d.]+) bits per base", result.err)
        assert [name for _, name, _ in found] == ["frozen", "adaptive"]
        assert all(1.9 < float(bits) < 2.1 for _, _, bits in found)  # bases are random
        header, row = (line.split("\t") for line in result.out.splitlines())
        assert header[7:] == [f"order_{order}_{name}" for order, name, _ in found]
        assert row[7:] == [bits for _, _, bits in found]
    assert figures[0] == figures[1]


def test_sequence_that_training_has_seen_elsewhere_is_told_beside_the_figure(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    trained = [line.split("\t") for line in (world.pretrained / "training.bed").read_text().splitlines()]
    contig, start = trained[0][0], int(trained[0][1])
    genome = Reference.open(world.reference)
    seen = genome.sequence(contig, start, start + 800)[::-1].translate(str.maketrans("ACGT", "TGCA"))
    new = "".join(random.Random(7).choices("ACGT", k=800))
    write_reference(tmp_path / "other.fa", {"copy": seen, "new": new})
    found = []
    for name in ("copy", "new"):
        (tmp_path / f"{name}.bed").write_text(f"{name}\t0\t800\n")
        words = ("-r", tmp_path / "other.fa", "-b", tmp_path / f"{name}.bed", "-m", world.pretrained, "--leak-check")
        result = run_cli("evaluate", "regions", *words)
        assert result.code == 0, result.err
        assert "0 of the regions' bases are in " in result.err  # by name it is not seen
        found += re.findall(r"([\d.]+) % of the regions' 31-mers occur in training sequence", result.err)
    assert found == ["100.00", "0.00"]
