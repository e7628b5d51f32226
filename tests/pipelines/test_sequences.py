"""`finetune sequences` and `evaluate sequences`, through the command line."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from sequence_tables import QUICK, SMALL, figures_of, gc_share, rows, write_table
from world import RunCli, World, write_reference

import genomamba
from genomamba.genome import alphabet
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.model.sequence_heads import SequenceModel
from genomamba.tasks.sequences import SequenceTask


def test_classes_are_learned_and_measured(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    found = figures_of(run_cli, trained / "table.csv", trained / "model", tmp_path / "e.json")
    assert found["sequences"] == 16
    assert found["classes"] == {"at": 8, "gc": 8}
    assert found["overall"]["MCC"][0] > 0.8
    assert set(found["overall"]) == {"MCC", "AUROC", "AUPRC", "accuracy", "F1", "Brier", "ECE"}
    made = json.loads((trained / "model" / "provenance.json").read_text())
    assert made["counts"] == {"train": 48, "dev": 16, "test": 16}
    assert made["dev"]["valid_mcc"] > 0.8
    card = (trained / "model" / "README.md").read_text()
    assert "from scratch on 48 sequences" in card


def test_predictions_agree_with_the_model_itself_on_either_strand(
    run_cli: RunCli, trained: Path, tmp_path: Path
) -> None:
    figures_of(
        run_cli, trained / "table.csv", trained / "model", tmp_path / "e.json", "--predictions", tmp_path / "p.tsv"
    )
    model = genomamba.load_model(trained / "model")
    assert isinstance(model, SequenceModel)
    texts = [line.split(",")[0] for line in (trained / "table.csv").read_text().splitlines()]
    with (tmp_path / "p.tsv").open() as stream:
        predicted = list(csv.DictReader(stream, delimiter="\t"))
    assert len(predicted) == 16
    for row in predicted:
        ids = alphabet.encode(texts[int(row["line"]) - 1])
        for strand in (ids, alphabet.reverse_complement(ids)):
            with torch.no_grad():
                probability = model.probabilities(model(torch.from_numpy(strand.copy()).unsqueeze(0)))[0]
            assert float(row["p_gc"]) == pytest.approx(float(probability[1]), abs=1e-4)
            assert (row["predicted"] == "gc") == bool(probability[1] >= model.threshold)


def test_the_same_seed_gives_the_same_model_whatever_the_workers(
    run_cli: RunCli, trained: Path, tmp_path: Path
) -> None:
    words = ("finetune", "sequences", "-i", trained / "table.csv", *SMALL, "--epochs", 1, "--augment.shift", 2)
    for name, more in (("a", ()), ("b", ("-@", 1)), ("c", ("--seed", 1))):
        assert run_cli(*words, "-o", tmp_path / name, *more).code == 0
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]


def test_a_head_that_reads_as_given_can_be_shown_the_other_strand(
    run_cli: RunCli, trained: Path, tmp_path: Path
) -> None:
    words = ("finetune", "sequences", "-i", trained / "table.csv", *SMALL, "--epochs", 1, "--head.strands", "given")
    for name, more in (("as", ()), ("either", ("--augment.other_strand", "true"))):
        result = run_cli(*words, "-o", tmp_path / name, *more)
        assert result.code == 0, result.err
    assert (tmp_path / "as/model.safetensors").read_bytes() != (tmp_path / "either/model.safetensors").read_bytes()


@pytest.mark.parametrize("form", ["tsv", "csv.gz", "parquet"])
def test_every_form_of_table_gives_the_same_figures(run_cli: RunCli, trained: Path, tmp_path: Path, form: str) -> None:
    table, other = trained / "table.csv", tmp_path / f"t.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(table), other)
    elif form == "tsv":
        other.write_text(table.read_text().replace(",", "\t"))
    else:
        other.write_bytes(gzip.compress(table.read_bytes()))
    found, expected = (
        figures_of(run_cli, path, trained / "model", tmp_path / "e.json", "--force")["overall"]
        for path in (other, table)
    )
    assert found == expected


def test_three_classes_with_weights_every_reading_and_pooling(run_cli: RunCli, tmp_path: Path) -> None:
    made = rows(3, per_class=40)
    table = write_table(tmp_path / "t.csv", made[:100])  # fewer of the last class
    for strands, pooling in (("given", "max"), ("joined", "regions"), ("both", "mean")):
        out = tmp_path / strands
        words = ("--head.strands", strands, "--head.pooling", pooling, "--class-weights", "balanced", "--average", 0.5)
        result = run_cli("finetune", "sequences", "-i", table, "-o", out, *SMALL, *QUICK, *words, "--epochs", 8)
        assert result.code == 0, result.err
        found = figures_of(run_cli, table, out, tmp_path / "e.json", "--force")
        assert found["overall"]["AUROC"][0] > 0.7, (strands, found["overall"])
        model = genomamba.load_model(out)
        assert isinstance(model, SequenceModel)
        assert model.classes == ("at", "even", "gc")
        assert model.log_weight[1] > model.log_weight[0]


def test_a_regression_answers_in_its_labels_unit(run_cli: RunCli, tmp_path: Path) -> None:
    made = [(text, f"{100 * gc_share(text):.2f}", split) for text, _, split in rows(3)]
    table = write_table(tmp_path / "t.csv", made)
    words = ("--task", "regression", *SMALL, "--epochs", 6, "--optimizer.lr", "3e-2")
    result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *words)
    assert result.code == 0, result.err
    found = figures_of(run_cli, table, tmp_path / "m", tmp_path / "e.json", "--predictions", tmp_path / "p.tsv")
    assert found["overall"]["Pearson"][0] > 0.9
    assert found["overall"]["MAE"][0] < 10
    predicted = np.genfromtxt(tmp_path / "p.tsv", names=True)
    assert found["overall"]["MAE"][0] == pytest.approx(
        np.abs(predicted["label"] - predicted["predicted"]).mean(), rel=1e-3
    )


def test_a_pretrained_model_is_the_start(run_cli: RunCli, world: World, trained: Path, tmp_path: Path) -> None:
    table = trained / "table.csv"
    save_model(
        MaskedLM(ModelConfig(d_model=16, n_layer=1, bidirectional=True)), tmp_path / "lm", card="", provenance={}
    )
    for number, model in enumerate((world.pretrained, tmp_path / "lm")):
        out = tmp_path / str(number)
        result = run_cli(
            *("finetune", "sequences", "-i", table, "-m", model, "-o", out, "--epochs", 1, "--device", "cpu"),
            *("--optimizer.lr", 1e-9, "--optimizer.weight_decay", 0),
        )
        assert result.code == 0, result.err
        before, after = genomamba.load_model(model), genomamba.load_model(out)
        for name, tensor in before.backbone.state_dict().items():
            torch.testing.assert_close(after.backbone.state_dict()[name], tensor, rtol=1e-4, atol=1e-4)
        assert str(model) in (out / "README.md").read_text()


@pytest.mark.parametrize("method", ["head", "lora", "probe", "boosting"])
def test_every_method_learns_and_leaves_a_plain_folder(
    run_cli: RunCli, world: World, trained: Path, tmp_path: Path, method: str
) -> None:
    how = {"boosting": "--method probe --probe.kind boosting --probe.trees 20".split()}.get(
        method, ["--method", method]
    )
    words = ("-i", trained / "table.csv", "-m", world.pretrained, "--device", "cpu", "--batch-size", 16, *how)
    result = run_cli("finetune", "sequences", *words, "-o", tmp_path / "m", "--epochs", 5, "--optimizer.lr", 2e-2)
    assert result.code == 0, result.err
    found = figures_of(run_cli, trained / "table.csv", tmp_path / "m", tmp_path / "e.json")
    assert found["overall"]["AUROC"][0] > 0.8
    # the pretrained weights stay, but for the low-rank updates, which are added in
    before, after = genomamba.load_model(world.pretrained), genomamba.load_model(tmp_path / "m")
    assert before.state_dict().keys() - after.state_dict().keys() == {"lm_head.weight"}
    changed = [
        name
        for name, tensor in before.backbone.state_dict().items()
        if not torch.equal(after.backbone.state_dict()[name], tensor)
    ]
    if method == "lora":
        assert changed
        assert all(name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight")) for name in changed)
    else:
        assert not changed


def test_a_regression_by_each_probe(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    made = [(text, f"{100 * gc_share(text):.2f}", split) for text, _, split in rows(3)]
    table = write_table(tmp_path / "t.csv", made)
    words = ("-i", table, "-m", world.pretrained, "--task", "regression", "--method", "probe", "--device", "cpu")
    for kind in ("logistic", "boosting"):
        more = ("--probe.kind", kind, "--probe.trees", 30, "-o", tmp_path / kind)
        result = run_cli("finetune", "sequences", *words, *more)
        assert result.code == 0, result.err
        found = figures_of(run_cli, table, tmp_path / kind, tmp_path / "e.json", "--force")
        assert found["overall"]["Spearman"][0] > 0.8


def test_fasta_and_bed_with_labels(run_cli: RunCli, world: World, genome: dict[str, str], tmp_path: Path) -> None:
    made = rows()
    names = [f"s{number}" for number in range(len(made))]
    fasta = write_reference(tmp_path / "s.fa", {name: text for name, (text, *_) in zip(names, made, strict=True)})
    labels = [(name, label, split) for name, (_, label, split) in zip(names, made, strict=True)]
    table = write_table(tmp_path / "labels.csv", labels, "name,label,split")
    out = tmp_path / "fasta"
    words = ("--labels", table, *SMALL, *QUICK)
    result = run_cli("finetune", "sequences", "-i", fasta, "-o", out, *words)
    assert result.code == 0, result.err
    found = figures_of(run_cli, fasta, out, tmp_path / "e.json", "--labels", table)
    assert found["overall"]["MCC"][0] > 0.8

    bed, labels = tmp_path / "r.bed", []
    with bed.open("w") as stream:
        for number in range(40):
            stream.write(f"chrA\t{200 * number}\t{200 * number + 50}\tr{number}\t0\t{'+-'[number % 2]}\n")
            labels.append((f"r{number}", "ab"[number % 2], ("train", "dev", "test", "train")[number // 2 % 4]))
    table = write_table(tmp_path / "bed.csv", labels, "name,y,split")
    words = ("-r", world.reference, "--labels", table, "--columns", "label=y")
    result = run_cli("finetune", "sequences", "-i", bed, "-o", tmp_path / "bed", *words, *SMALL, "--epochs", 1)
    assert result.code == 0, result.err
    found = figures_of(run_cli, bed, tmp_path / "bed", tmp_path / "e2.json", *words)
    assert found["classes"] == {"a": 5, "b": 5}


def test_figures_within_strata_and_na_where_there_is_one_class(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    made = [(text, label, "test", "one" if label == "at" else "two") for text, label, _ in rows(seed=7)]
    table = write_table(tmp_path / "t.csv", made, "sequence,label,split,Kind")
    result = run_cli(
        *("evaluate", "sequences", "-i", table, "-m", trained / "model", "--strata", "Kind"),
        *("-o", tmp_path / "e.json", "--device", "cpu"),
    )
    assert result.code == 0, result.err
    (within,) = json.loads((tmp_path / "e.json").read_text())["within"].values()
    assert [(row["stratum"], row["sequences"], row["MCC"]) for row in within] == [
        ("one", 40, [None, None, None]),
        ("two", 40, [None, None, None]),
    ]
    assert within[0]["accuracy"][0] > 0.8
    assert "within Kind" in result.out
    assert " NA " in result.out


def test_what_splits_share_is_refused_or_dropped_with_its_count(run_cli: RunCli, tmp_path: Path) -> None:
    made = rows()
    test = next(row for row in made if row[2] == "test")
    other = alphabet.decode(alphabet.reverse_complement(alphabet.encode(test[0])))
    table = write_table(tmp_path / "t.csv", [*made, (other, test[1], "train"), (test[0], test[1], "test")])
    words = ("finetune", "sequences", "-i", table, "-o", tmp_path / "m", *SMALL, "--epochs", 1)
    refused = run_cli(*words)
    assert refused.code == 2
    first, second = made.index(test) + 2, len(made) + 2
    assert refused.err == (
        f"{table}: split: test (line {first}) and train (line {second}) hold a sequence and its reverse complement; "
        "1 sequences are concerned; pass --leaks drop to leave them out of training and dev, or correct the splits\n"
    )
    assert not (tmp_path / "m").exists()
    dropped = run_cli(*words, "--leaks", "drop")
    assert dropped.code == 0, dropped.err
    assert "left out 1 sequences, in train and in test" in dropped.err
    assert "left out 1 sequences, twice in test" in dropped.err


def test_evaluate_refuses_what_training_has_seen(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    seen = next(row for row in rows() if row[2] == "train")
    other = alphabet.decode(alphabet.reverse_complement(alphabet.encode(seen[0])))
    table = write_table(tmp_path / "t.csv", [*rows(seed=5)[:60], (other, seen[1])], "sequence,label")
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()) + "\n")
    words = ("evaluate", "sequences", "-i", table, "-m", trained / "model", "--device", "cpu")
    refused = run_cli(*words)
    assert refused.code == 2
    assert f"{table}:62: sequence: the model was trained or calibrated on 1 of 61 sequences" in refused.err
    result = run_cli(*words, "--leaks", "drop")
    assert result.code == 0
    assert "left out 1 sequences, seen in training" in result.err


def test_training_that_does_not_improve_ends_early(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    words = ("finetune", "sequences", "-i", trained / "table.csv", *SMALL, "--optimizer.lr", 0)
    result = run_cli(*words, "-o", tmp_path / "m", "--epochs", 50, "--patience", 2)
    assert result.code == 0, result.err
    with (tmp_path / "m" / "metrics.csv").open() as stream:
        validations = [row for row in csv.DictReader(stream) if row["valid_loss"]]
    assert len(validations) == 3
    result = run_cli(*words, "-o", tmp_path / "n", "--epochs", 100_000, "--max-minutes", 0.005)
    assert result.code == 0, result.err


def test_a_signal_keeps_the_best_so_far(
    run_cli: RunCli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = SequenceTask.training_step, itertools.count()

    def stopped(*args: Any) -> torch.Tensor:
        if next(calls) == 8:  # in the third epoch, after two validations
            signal.raise_signal(signal.SIGTERM)
        return step(*args)

    words = ("finetune", "sequences", "-i", trained / "table.csv", "-o", tmp_path / "m", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(SequenceTask, "training_step", stopped)
        result = run_cli(*words, "--epochs", 100_000, "--patience", 100_000)
    assert result.code == 128 + signal.SIGTERM, result.err
    assert "what was best until then is kept" in result.err
    assert next(calls) <= 10
    assert figures_of(run_cli, trained / "table.csv", tmp_path / "m", tmp_path / "e.json")["sequences"] == 16


def test_a_loss_that_is_not_finite_stops_and_names_sequences(run_cli: RunCli, trained: Path, tmp_path: Path) -> None:
    far = ("--optimizer.lr", "1e30", "--optimizer.clip", "1e30", "--optimizer.warmup", 0)
    words = ("finetune", "sequences", "-i", trained / "table.csv", "-o", tmp_path / "m", *SMALL, *far)
    failed = run_cli(*words)
    assert failed.code == 1
    assert "the loss is nan at step" in failed.err
    assert "of the training split; the weights were not changed; lower optimizer.lr" in failed.err
    assert not (tmp_path / "m" / "model.safetensors").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("strands", ["both", "joined"])
def test_a_run_of_cuda_graphs_gives_the_plain_run_s_weights(run_cli: RunCli, tmp_path: Path, strands: str) -> None:
    made = [(text[:20], label, split) for text, label, split in rows()]  # of one length
    table = write_table(tmp_path / "t.csv", made)
    small = [*SMALL[:-1], "gpu"]  # in place of its cpu
    words = ("--precision", "bf16-mixed", "--head.strands", strands, "--epochs", 2, "--leaks", "drop")
    for name, more in (("graphed", ["--cuda-graph"]), ("plain", [])):
        result = run_cli("finetune", "sequences", "-i", table, "-o", tmp_path / name, *small, *words, *more)
        assert result.code == 0, result.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("graphed", "plain")]
    assert weights[0] == weights[1]
