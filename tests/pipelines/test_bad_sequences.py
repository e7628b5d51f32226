"""What `finetune sequences` and `evaluate sequences` refuse or leave out, through the command line."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sequence_tables import SMALL, rows, write_table
from world import RunCli, World, write_reference


def bad_rows() -> Iterator[tuple[str, list[tuple[str, ...]], str]]:
    good = rows()
    yield "NaN", [*good, ("ACGT", "NaN", "train")], ":82: label=NaN: this is no label"  # 52
    yield "no label", [*good, ("ACGT", "", "train")], ":82: label: this is no label"
    yield (
        "tab",
        [*good, ("ACGT", '"a\tb"', "train")],
        r":82: label=a\tb: the label holds control characters; rename the",
    )
    yield "two lines", [*good, ("ACGT", '"a\nb"', "dev")], r":83: label=a\nb: the label holds control characters"
    yield "unknown", [*good, ("ACGTA", "x", "dev")], ":82: label=x: training has no such class; it has at, gc"
    yield "one class", [(t, "at", s) for t, _, s in good], ": split=train: the split has 48 sequences, all of class at"
    yield "one in dev", [r for r in good if r[1:] != ("gc", "dev")], ": split=dev: the split has 8 sequences, all"  # 53
    yield "no split", [*good, ("ACGT", "at", "tarin")], ":82: split=tarin: no such split; write train, dev or test"
    yield "protein", [*good, ("MKLE", "at", "train")], ":82: sequence=MKLE: 'L' at base 3 is no nucleotide"
    yield "gap", [*good, ("AC-T", "at", "train")], ":82: sequence=AC-T: '-' at base 3 is no nucleotide"
    yield "U", [*good, ("ACGU", "at", "train")], ":82: sequence=ACGU: 'U' at base 4 is no nucleotide; pass --rna"
    yield "empty", [*good, ("", "at", "train")], ":82: sequence: the sequence is empty"
    yield "columns", [*good, ("ACGT", "at")], ":82: the row has 2 columns where the header has 3"


@pytest.mark.parametrize(("made", "words"), [pytest.param(*case[1:], id=case[0]) for case in bad_rows()])
def test_bad_rows_are_refused_by_line(run_cli: RunCli, tmp_path: Path, made: list[tuple[str, ...]], words: str) -> None:
    table = write_table(tmp_path / "t.csv", made)
    result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *SMALL)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{table}{words}"), result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--method lora",
            "method=lora: without a pretrained model there is nothing to keep; give -m, such as -m shipped",
        ),
        ("--smoothing 1", "smoothing=1.0: it must be below 1"),
        (
            "--head.pooling median",
            "head.pooling=median: expected one of 'mean', 'max', 'last', 'attention', 'regions'; ",
        ),
        ("--head.regions 0", "head.regions=0: it must be at least 1"),
        ("-m shipped --method probe --head.pooling regions", "method=probe: a probe has no layers that training could"),
        ("--architecture.dmodel 3", "--architecture.dmodel: unknown option; the nearest is --architecture.d_model"),
        ("--columns label", "columns=label: it is not understood; write FIELD=COLUMN"),
        (
            "--columns label=y",
            "table.csv: y: there is no such column; there is sequence, label, split; --columns ",
        ),
        ("--task regression", "table.csv:2: label=at: a regression needs a finite number"),
        ("--task regression --smoothing 0.1", "task: a regression has no classes"),
        ("-r {table}", "reference: a BED needs labels"),
        ("--device gpu", "device=gpu: torch finds no GPU"),
        ("--augment.mutate 2", "augment.mutate=2.0: it must be at most 1"),
        ("--augment.shift -1", "augment.shift=-1: it must be at least 0"),
        ("--architecture.vocab_size 3", "model.vocab_size=3: the alphabet has 12 ids; change it"),
        ("--lora.rank 0", "lora.rank=0: it must be at least 1"),
        ("--probe.trees 0", "probe.trees=0: it must be at least 1"),
        ("--lora.rank 8", "lora.rank=8: it counts only with --method lora; give that too, or leave this out"),
        ("--head.regio=8", "--head.regio: unknown option; the nearest is --head.regions"),
        ("--head.regions=8", "head.regions=8: it counts only with --head.pooling regions; give that too, or leave"),
        ("--lora.rank 2", "lora.rank=2: it counts only with --method lora; give that too, or leave this out"),
        ("-m shipped --method head --lora.targets [x_proj]", "lora.targets=['x_proj']: it counts only with --method l"),
        ("--probe.kind boosting", "probe.kind=boosting: it counts only with --method probe; give that too, or leave"),
        ("--head.regions 3", "head.regions=3: it counts only with --head.pooling regions; give that too, or leave"),
        ("--dropout 0.1", "dropout=0.1: it counts only with -m (from scratch, --architecture.dropout); give that too"),
    ],
)
def test_options_that_cannot_be_are_named(
    run_cli: RunCli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table = trained / "table.csv"
    given = words.format(table=table).split()
    result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *given)
    assert result.code == 2
    assert result.err.removeprefix(f"{trained}/").startswith(line), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_saved_configuration_names_what_nothing_reads(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    """As it is by default that does no harm; anything else would be overlooked."""
    saved = (trained / "model" / "run.yaml").read_text()
    assert "  rank: 8\n" in saved
    assert "  regions: 8\n" in saved
    (tmp_path / "run.yaml").write_text(saved)
    words = ("finetune", "sequences", "-c", tmp_path / "run.yaml", "-o", tmp_path / "m", "--epochs", 1)
    assert run_cli(*words).code == 0
    (tmp_path / "run.yaml").write_text(saved.replace("  rank: 8\n", "  rank: 2\n"))
    result = run_cli(*words, "--force")
    assert (result.code, result.err) == (
        2,
        "lora.rank=2: it counts only with --method lora; give that too, or leave this out\n",
    )


def test_sequences_without_a_base_are_left_out_and_counted(run_cli: RunCli, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [*rows(), ("NNNN", "at", "train"), ("nnRY", "gc", "test")])  # 65
    result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *SMALL, "--epochs", 1)
    assert result.code == 0, result.err
    assert "left out 2 sequences, no base in it" in result.err
    nothing = write_table(tmp_path / "n.csv", [("NNNN", "at", "train")])
    result = run_cli("finetune", "sequences", "-i", nothing, "-o", tmp_path / "n", *SMALL)
    assert (result.code, result.err) == (2, f"{nothing}: no sequence in it has a base; check how it was made\n")


def test_a_table_of_a_header_alone(run_cli: RunCli, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [])
    result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *SMALL)
    assert (result.code, result.err) == (2, f"{table}: there are no records in it; check how it was made\n")
    fasta = write_reference(tmp_path / "s.fa", {"a": "ACGT"})
    labels = tmp_path / "l.tsv"
    labels.write_text("name\tlabel\tsplit\n")
    result = run_cli("finetune", "sequences", "-i", fasta, "--labels", labels, "-o", tmp_path / "m", *SMALL)
    assert (result.code, result.err) == (2, f"{labels}: there are no records in it; give each sequence a row\n")
    assert not (tmp_path / "m").exists()


def test_names_and_labels_must_fit(run_cli: RunCli, tmp_path: Path) -> None:
    fasta = write_reference(tmp_path / "s.fa", {"a": "ACGT", "b": "CCGT"})
    words = ("finetune", "sequences", "-i", fasta, "-o", tmp_path / "m", "--labels", tmp_path / "l.csv")
    result = run_cli("finetune", "sequences", "-i", fasta, "-o", tmp_path / "m")
    assert result.err == f"{fasta}: there are no labels in FASTA and BED; give --labels, a table of name and label\n"
    for labels, line in (
        ([("a", "x")], f"{fasta}:2: name=b: {tmp_path}/l.csv has no label for it"),
        ([("a", "x"), ("b", "y"), ("c", "y")], f"{tmp_path}/l.csv:4: name=c: {fasta} has no sequence of this name (1 "),
        ([("a", "x"), ("a", "y"), ("b", "y")], f"{tmp_path}/l.csv:3: name=a: the name stands twice"),
    ):
        write_table(tmp_path / "l.csv", labels, "name,label")
        result = run_cli(*words)
        assert result.code == 2
        assert result.err.startswith(line), result.err


def test_bad_regions_are_refused(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    write_table(tmp_path / "l.csv", [("r", "x")], "name,label")
    words = ("-r", world.reference, "--labels", tmp_path / "l.csv", "-o", tmp_path / "m")
    for text, line in (
        ("chrA\t9\t5\tr", ":1: end=5: it lies before the start, 9"),  # 26
        ("chrA\t9\t9\tr", ":1: region=chrA:10-9: it is empty or ends past the contig"),  # 27
        ("chrA\t9990\t10010\tr", ":1: region=chrA:9991-10010: it is empty or ends past the contig"),  # 28
        ("chrA\t1e3\t2000\tr", ":1: start=1e3: not a whole number"),  # 29
        ("chrA 1 20 r", ":1: columns=1: spaces where tabs should be"),  # 30
        ("A\t1\t20\tr", ":1: region=A:2-20: the reference has no such contig"),  # 32
        ("chrA\t1\t20\tr\t0\tx", ":1: strand=x: no strand"),  # 33
    ):
        bed = tmp_path / "r.bed"
        bed.write_text(text + "\n")
        result = run_cli("finetune", "sequences", "-i", bed, *words)
        assert result.code == 2
        assert result.err.startswith(f"{bed}{line}"), result.err


def test_models_of_another_kind_are_refused(run_cli: RunCli, world: World, trained: Path, tmp_path: Path) -> None:
    table = trained / "table.csv"
    for words, line in (
        (("finetune", "sequences", "-m", trained / "model", "-o", tmp_path / "x"), "it is no language model"),
        (("evaluate", "sequences", "-m", world.pretrained), "it is a causal language model, which has no classific"),
        (("evaluate", "sequences", "-m", world.classifier), "it is a variant classifier, not a model of whole seq"),
        (("evaluate", "sequences", "-m", tmp_path / "nowhere"), "config.json: it is missing"),
    ):
        result = run_cli(*words, "-i", table)
        assert result.code == 2
        assert line in result.err
    score = ("score", "-r", world.reference, "-i", world.labelled, "-m", trained / "model", "-o", tmp_path / "o.vcf")
    result = run_cli(*score)
    assert result.code == 2
    assert "a model of whole sequences has no score of a variant" in result.err


def test_damaged_folders_are_refused(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    words = ("evaluate", "sequences", "-i", trained / "table.csv", "-m", tmp_path / "m")
    for name, content, line in (
        ("seen.npy", b"\x93NUMPY", "seen.npy: it cannot be read"),
        ("seen.npy", None, "seen.npy: it cannot be read"),
        ("model.safetensors", b"cut", "model.safetensors: it is cut or not safetensors"),  # 56
        ("model.safetensors", pickle.dumps({"a": 1}), "model.safetensors: it is cut or not safetensors"),  # 58
        ("config.json", b"other", "weights and config.json disagree: "),  # 57
        ("config.json", None, "config.json: it is missing"),
    ):
        folder = tmp_path / "m"
        folder.mkdir(exist_ok=True)
        for path in (trained / "model").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        if content == b"other":
            content = (folder / name).read_bytes().replace(b'"d_state": 4', b'"d_state": 5')
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        result = run_cli(*words)
        assert result.code == 2
        assert line in result.err


def test_outputs_that_exist_are_refused_and_replaced_with_force(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    for name, file in (("-o", "x.json"), ("--predictions", "x.tsv")):
        path = tmp_path / file
        path.write_text("old")
        words = ("evaluate", "sequences", "-i", trained / "table.csv", "-m", trained / "model", "--device", "cpu")
        result = run_cli(*words, name, path)
        assert (result.code, path.read_text()) == (2, "old")
        assert "--force" in result.err
        assert run_cli(*words, name, path, "--force").code == 0
        assert path.read_text() != "old"
    result = run_cli("finetune", "sequences", "-i", trained / "table.csv", "-o", trained / "model", *SMALL)
    assert result.code == 2
    assert "pass --force to replace it" in result.err
