"""Classes, values and tracks of sequences, through the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from world import REGIONS, STATUS, RunCli, World, write_reference

from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig
from genomamba.model.folder import load_model, save_model
from genomamba.model.sequence_heads import SequenceModel, TokenModel
from genomamba.pipelines import predict_table


def sequence_model(folder: Path, classes: Sequence[str]) -> SequenceModel:
    torch.manual_seed(4)
    model = SequenceModel(ModelConfig(d_model=16, n_layer=1, d_state=4), classes=classes).eval()
    with torch.no_grad():
        model.backbone.embedding.weight.mul_(20)
        model.head[-1].weight.mul_(30)  # type: ignore[index]
        if classes:
            model.temperature.fill_(1.5)
            model.threshold.fill_(0.3)
        else:
            model.scale.fill_(7.0)
            model.center.fill_(100.0)
    save_model(model, folder, card="", provenance={})
    return model


def token_model(folder: Path, tracks: Sequence[str], **kind: bool) -> TokenModel:
    torch.manual_seed(5)
    model = TokenModel(ModelConfig(d_model=8, n_layer=2, d_state=4, **kind), tracks).eval()
    save_model(model, folder, card="", provenance={"window": 32})
    return model


def ids_of(sequence: str) -> Tensor:
    return torch.from_numpy(alphabet.encode(sequence))[None]


def reverse_complement(sequence: str) -> str:
    return sequence.translate(str.maketrans("ACGT", "TGCA"))[::-1]


@pytest.fixture
def expected_sequences(genome: dict[str, str]) -> list[str | None]:
    a, b = genome["chrA"], genome["chrB"]
    return [a[100:160], None, b[8990:], None, reverse_complement(a[300:420])]


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c"), ()])
@torch.no_grad()
def test_every_record_has_its_row(
    world: World,
    run_cli: RunCli,
    tmp_path: Path,
    expected_sequences: list[str | None],
    classes: tuple[str, ...],
) -> None:
    model = sequence_model(tmp_path / "m", classes)
    (tmp_path / "x.bed").write_text(REGIONS)
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "-b", tmp_path / "x.bed", "--edge", "pad")
    result = run_cli(*words, "--batch-size", 2)
    assert result.code == 0, result.err
    assert "  OK                           2\n" in result.err
    told = f"yes is predicted from a probability of {model.threshold.item():.4g} on\n"
    assert (told in result.err) == (len(classes) == 2)
    assert run_cli(*words, "-o", tmp_path / "o.parquet").code == 0
    typed = pq.read_table(tmp_path / "o.parquet").to_pylist()
    header, *rows = (line.split("\t") for line in result.out.splitlines())
    assert header == ["contig", "start", "end", "strand", "name", "status", "predicted", *(f"p_{c}" for c in classes)]
    assert [row[5] for row in rows] == STATUS
    assert rows[2][:5] == ["chrB", "8990", "9010", ".", "edge"]
    answers = set()
    for row, typed_row, sequence in zip(rows, typed, expected_sequences, strict=True):
        assert list(typed_row) == header
        if sequence is None:
            assert set(row[6:]) == {"NA"}
            assert {typed_row[name] for name in header[6:]} == {None}
            continue
        outputs = model(ids_of(sequence))
        if not classes:
            assert float(row[6]) == pytest.approx(float(model.values(outputs)), rel=1e-4)
            assert typed_row["predicted"] == pytest.approx(float(row[6]), rel=1e-5)
            continue
        probabilities = model.probabilities(outputs)
        assert row[6] == typed_row["predicted"] == classes[int(model.called(probabilities))]
        answers.add(row[6])
        np.testing.assert_allclose([float(cell) for cell in row[7:]], probabilities[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose([typed_row[name] for name in header[7:]], probabilities[0], rtol=1e-3, atol=1e-5)


def test_each_record_of_a_fasta_is_a_sequence(run_cli: RunCli, tmp_path: Path) -> None:
    model = sequence_model(tmp_path / "m", ("no", "yes"))
    write_reference(tmp_path / "s.fa", {"one": "ACGTTTGA", "n": "NNNR", "empty": "", "two": "GGCCA"})
    result = run_cli("predict", "-r", tmp_path / "s.fa", "-m", tmp_path / "m")
    assert result.code == 0, result.err
    rows = [line.split("\t") for line in result.out.splitlines()[1:]]
    assert [(row[4], row[5]) for row in rows] == [
        ("one", "OK"),
        ("n", "SKIP_NO_BASES"),
        ("empty", "SKIP_ZERO_LENGTH"),
        ("two", "OK"),
    ]
    with torch.no_grad():
        expected = float(model.probabilities(model(ids_of("GGCCA")))[0, 1])
    assert float(rows[3][8]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("classes", [("no", "yes"), ()])
def test_a_table_without_rows_has_its_columns(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...]
) -> None:
    sequence_model(tmp_path / "m", classes)
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "--region", "chrA:1-9")
    assert run_cli(*words, "-o", tmp_path / "one.parquet").code == 0
    one = run_cli(*words)
    monkeypatch.setattr(predict_table, "chosen_regions", lambda *_: [])
    result = run_cli(*words)
    assert (result.code, result.out) == (0, one.out.splitlines(keepends=True)[0])
    assert run_cli(*words, "-o", tmp_path / "none.parquet").code == 0
    assert pq.read_schema(tmp_path / "none.parquet") == pq.read_schema(tmp_path / "one.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("kind", ["causal", "both strands"])
@torch.no_grad()
def test_tracks_are_written_one_file_each(
    world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str], kind: str
) -> None:
    bigwig = pytest.importorskip("pyBigWig")
    flags = {} if kind == "causal" else {"bidirectional": True, "rc_equivariant": True}
    model = token_model(tmp_path / "m", ["cage", "atac"], **flags)
    torch.testing.assert_close(load_model(tmp_path / "m").state_dict(), model.state_dict())
    (tmp_path / "x.bed").write_text("chrB\t20\t90\ty\t0\t-\nchrA\t10\t60\tx\nchrQ\t1\t2\n")
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "-b", tmp_path / "x.bed", "--window")
    window = 16 if kind == "causal" else 1000
    result = run_cli(*words, window, "-o", tmp_path / "o.bw")
    assert result.code == 0, result.err
    assert {path.name for path in tmp_path.glob("o.*")} == {"o.cage.bw", "o.atac.bw"}
    plus = model(ids_of(genome["chrA"][10:60]))[0]
    minus = model(ids_of(reverse_complement(genome["chrB"][20:90])))[0].flip(0)
    for number, name in enumerate(("cage", "atac")):
        with bigwig.open(str(tmp_path / f"o.{name}.bw")) as track:
            np.testing.assert_allclose(track.values("chrA", 10, 60), plus[:, number], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(track.values("chrB", 20, 90), minus[:, number], rtol=1e-4, atol=1e-5)
            assert len(track.intervals("chrA")) == 50
    again = run_cli(*words, window, "-o", tmp_path / "o.bw")
    assert (again.code, again.err.startswith(f"{tmp_path}/o.cage.bw: the output exists; ")) == (2, True)
    refused = run_cli(*words, window)
    assert refused.err == "-: the model has 2 tracks; give a file\n"


def test_one_track_goes_where_it_is_told(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    token_model(tmp_path / "m", ["only"])
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "--region", "chrA:1-7")
    result = run_cli(*words)
    assert result.code == 0, result.err
    assert [line.split("\t")[:3] for line in result.out.splitlines()] == [
        ["chrA", str(at), str(at + 1)] for at in range(7)
    ]
    assert run_cli(*words, "-o", tmp_path / "o.bedgraph").code == 0
    assert (tmp_path / "o.bedgraph").read_text() == result.out


def test_other_models_and_formats_are_refused(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("predict", "-r", world.reference, "-m", world.pretrained)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{world.pretrained}: it is a causal language model, which has no classification head")
    result = run_cli("predict", "-r", world.reference, "-m", world.classifier)
    problem = "it is a variant classifier, not a model of whole sequences; give a run folder of `finetune sequences`"
    assert result.err == f"{world.classifier}: {problem}\n"
    sequence_model(tmp_path / "m", ("no", "yes"))
    token_model(tmp_path / "t", ["x"])
    words = ("predict", "-r", world.reference, "-m")
    result = run_cli(*words, tmp_path / "m", "-o", "x.bw")
    assert result.err == "x.bw: the extension names no format of tables; use .tsv, .tsv.gz or .parquet\n"
    result = run_cli(*words, tmp_path / "t", "-o", "x.tsv")
    assert result.err == "x.tsv: the extension names no format of tracks; use .bw or .bedgraph\n"
    config = (tmp_path / "t" / "config.json").read_text()
    (tmp_path / "t" / "config.json").write_text(config.replace('"x"', '"x", "x"'))
    result = run_cli(*words, tmp_path / "t")
    assert result.code == 2
    assert "config.json: tracks=" in result.err
    (tmp_path / "x.bed").write_text("chrA\t1\t5\tn\t0\tx\n")
    result = run_cli(*words, tmp_path / "m", "-b", tmp_path / "x.bed", "-o", tmp_path / "o.tsv")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"{tmp_path}/x.bed:1: strand=x: no strand")
    assert not (tmp_path / "o.tsv").exists()


@pytest.mark.parametrize(
    ("kind", "words", "problem"),
    [
        ("tracks", ("--batch-size", 7), "batch_size=7: it counts only with a model of whole sequences"),
        ("classes", ("--window", 7, "--overlap", 3), "window=7: it counts only with a model of tracks"),
        ("classes", ("--overlap", 3), "overlap=3: it counts only with a model of tracks"),
    ],
)
def test_options_of_the_other_kind_of_model_are_refused(
    world: World, run_cli: RunCli, tmp_path: Path, kind: str, words: tuple[object, ...], problem: str
) -> None:
    if kind == "tracks":
        token_model(tmp_path / "m", ["x"])
    else:
        sequence_model(tmp_path / "m", ("no", "yes"))
    result = run_cli("predict", "-r", world.reference, "-m", tmp_path / "m", "-o", tmp_path / "o.tsv", *words)
    assert (result.code, result.err) == (2, f"{problem}; give that too, or leave this out\n")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("tracks", [["only"], ["cage", "atac"], None])
def test_an_input_is_never_replaced(world: World, run_cli: RunCli, tmp_path: Path, tracks: list[str] | None) -> None:
    if tracks is None:
        sequence_model(tmp_path / "m", ("no", "yes"))
    else:
        token_model(tmp_path / "m", tracks)
    suffix = "tsv" if tracks is None else "bedgraph"
    bed = tmp_path / (f"r.atac.{suffix}" if tracks == ["cage", "atac"] else f"r.{suffix}")
    bed.write_text("chrA\t10\t60\n")
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "-b", bed, "-o", tmp_path / f"r.{suffix}")
    for more in ((), ("--force",), ("--resume",)):
        result = run_cli(*words, *more)
        assert (result.code, result.err) == (2, f"{bed}: output: regions is the same file; give another name\n")
    assert bed.read_text() == "chrA\t10\t60\n"
    assert {path.name for path in tmp_path.iterdir()} == {"m", bed.name}


def test_a_closed_pipe_ends_quietly(run_cli: RunCli, tmp_path: Path) -> None:
    sequence_model(tmp_path / "m", ("no", "yes"))
    write_reference(tmp_path / "s.fa", {f"record_{number}": "ACGT" for number in range(9000)})
    words = f"predict -r {tmp_path}/s.fa -m {tmp_path}/m --batch-size 4096 --device cpu"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m genomamba {words} | head -n 2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("classes", "target", "column", "label"),
    [
        (("no", "yes"), None, "change_of_log_odds_nats_yes", "log-odds of yes, nats"),
        (("a", "b", "c"), "b", "change_of_log_odds_nats_b", "log-odds of b, nats"),
        ((), None, "change_of_value", "the value"),
    ],
)
@torch.no_grad()
def test_attribute_scores_the_change_of_an_answer_and_names_it(
    run_cli: RunCli, tmp_path: Path, classes: tuple[str, ...], target: str | None, column: str, label: str
) -> None:
    model = sequence_model(tmp_path / "m", classes)
    sequence = "ACGTNTGACC"
    write_reference(tmp_path / "s.fa", {"s": sequence})
    words = ["attribute", "-r", tmp_path / "s.fa", "-m", tmp_path / "m", "--region", "s", "--batch-size", 7]
    pictures = ("--logo", tmp_path / "logo.svg", "--heatmap", tmp_path / "map.svg")
    result = run_cli(*words, *(("--target", target) if target else ()), *pictures)
    assert result.code == 0, result.err

    def written(picture: str) -> str:
        return " ".join(re.findall("<!-- (.*) -->", (tmp_path / picture).read_text()))  # a label may have lines

    assert f" mean loss of {label}" in written("logo.svg")
    assert f" change of {label}" in written("map.svg")

    def answer(text: str) -> float:
        outputs = model(ids_of(text)).double()
        if not classes:
            return float(model.values(outputs))
        p = model.probabilities(outputs)[0].double()
        return float(torch.logit(p[classes.index(target) if target else 1]))

    header, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert header == ["contig", "pos", "ref", "alt", column]
    assert len(rows) == 27
    for _, pos, ref, alt, score in rows:
        at = int(pos) - 1
        assert sequence[at] == ref
        expected = answer(sequence[:at] + alt + sequence[at + 1 :]) - answer(sequence)
        assert float(score) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert np.std([float(row[4]) for row in rows]) > 0.01
    refused = run_cli(*words, "--target", "zebra")
    assert refused.err.startswith("target=zebra: the model has no such class; it has ")


@pytest.mark.parametrize("kind", ["classes", "tracks"])
def test_an_output_that_exists_is_told_before_the_model_is_read(
    world: World, run_cli: RunCli, tmp_path: Path, kind: str
) -> None:
    if kind == "tracks":
        token_model(tmp_path / "m", ["dnase", "cage"])
    else:
        sequence_model(tmp_path / "m", ("no", "yes"))
    (tmp_path / "m" / "model.safetensors").write_bytes(b"cut")  # so that reading it fails
    given, written = {"classes": ("o.tsv", "o.tsv"), "tracks": ("o.bw", "o.cage.bw")}[kind]
    (tmp_path / written).write_text("old")
    words = ("predict", "-r", world.reference, "-m", tmp_path / "m", "-o", tmp_path / given)
    result = run_cli(*words)
    assert result.code == 2
    assert result.err.startswith(f"{tmp_path / written}: the output exists; "), result.err
    assert "cut or not safetensors" in run_cli(*words, "--force").err
    assert (tmp_path / written).read_text() == "old"
