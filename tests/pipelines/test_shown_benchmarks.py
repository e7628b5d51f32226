"""Every benchmark that the pages name runs in a small form, and takes the options that it is shown with.

Those that measure a GPU say that there is none, and run in tests marked ``gpu``. What a benchmark finds out about speed
is not looked at, only that the figures are there and agree with one another.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from sequence_tables import rows
from shown import ROOT, Command, of_kind, parsed
from world import RunCli, Words, World

import genomamba
from genomamba.model.folder import weights_fingerprint
from genomamba.pipelines.open_reference import open_reference

BENCHMARKS = ROOT / "benchmarks"
# Run by tests of their own.
ELSEWHERE = {
    "mutagenesis": "test_attribute.py",
    "plan_fit": "test_plan.py",
    "results_page": "test_results_page.py",
}
RUN_HERE: set[str] = set()
Call = Callable[..., Any]


def runs(*names: str) -> Callable[[Call], Call]:
    """Notes which benchmarks a test runs."""
    RUN_HERE.update(names)
    return lambda test: test


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """``call("scan", "--rows", 0)`` in this process; answers with the JSON of its --out."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(name: str, *words: object) -> Any:
        out = tmp_path / f"{name}.json"
        given = [str(word) for word in (BENCHMARKS / f"{name}.py", *words)]
        monkeypatch.setattr(sys, "argv", given)
        runpy.run_path(given[0], run_name="__main__")
        return json.loads(out.read_text()) if out.exists() else None

    return run


def programs() -> set[str]:
    return {Path(command.words[1]).stem for command in of_kind("benchmark")}


@pytest.mark.parametrize("command", of_kind("benchmark"), ids=lambda command: command.text[:100])
def test_the_options_shown_are_taken(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program's own parser, behind which nothing is run."""
    if command.words[1].endswith("scan_instructions.py"):
        pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert parsed(monkeypatch, command.words[2:], str(ROOT / command.words[1]), runpy.run_path)
    for flag, name in zip(command.words, command.words[1:], strict=False):
        if flag == "--draw":
            assert (ROOT / name).is_file()


def test_each_one_is_run_by_a_test() -> None:
    assert len(programs()) > 12
    assert programs() - RUN_HERE - set(ELSEWHERE) == set()
    for name, file in ELSEWHERE.items():
        assert f'"{name}.py"' in (Path(__file__).parent / file).read_text()


@runs("scoring")
def test_scoring_compares_its_ways(call: Call, tmp_path: Path) -> None:
    small = "--device cpu --d-model 8 --layers 1 --window 64 --variants 8 --batch-size 4".split()
    found = call("scoring", *small, "--out", tmp_path / "scoring.json")
    assert {case["variants"] for case in found["cases"]} == {"scattered", "panel", "saturation"}
    for case in found["cases"]:
        assert case["largest_difference_from_plain_nats"] < 1e-4 < case["largest_llr"]
        assert (case["gain"] == 1) == (case["path"] == "plain")
        assert 0 < case["variants_per_second"] < math.inf
    assert found["forward_tokens_per_second"] == pytest.approx(4 * 64 * found["forward_variants_per_second"])


@runs("selectivity")
def test_selectivity_trains_and_draws(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "selectivity.json"
    small = "--device cpu --width 8 --batch 4 --length 24 --items 2 --steps 2 --minutes 0.1 --models S4D".split()
    task = ("--tasks", "selective copying")
    call("selectivity", *small, *task, "--seeds", 0, "--out", out)
    found = call("selectivity", *small, *task, "--seeds", 1, "--out", out)  # what is there already is kept
    assert [(run["seed"], run["steps"], run["length"]) for run in found["runs"]] == [(0, 2, 24), (1, 2, 24)]
    assert all(0 <= run["accuracy"] < 1 and run["parameters"] > 1000 for run in found["runs"])
    draws(call, "selectivity", tmp_path, capsys)


@runs("crossover")
def test_crossover_draws(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws(call, "crossover", tmp_path, capsys)


@runs("crossover")
def test_crossover_measures_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    crossover: Any = importlib.import_module("crossover")
    monkeypatch.setitem(crossover.SIZES, "cpu", crossover.Sizes([16, 32], [16], 32, 300, 20.0))
    words = ["--device", "cpu", "--models", "Mamba", "attention + MLP", "--out", str(tmp_path / "crossover.json")]
    monkeypatch.setattr(sys, "argv", ["crossover.py", *words])
    threads = torch.get_num_threads()
    crossover.main()
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "crossover.json").read_text())
    assert [(row["model"], row["length"], row["batch"]) for row in found["training"]] == [
        (model, length, 32 // length) for model in ("Mamba", "attention + MLP") for length in (16, 32)
    ]
    assert all(row["step_Mbp_per_s"] > 0 and row["peak_GiB"] >= 0 for row in found["training"])
    recurrent, attention = found["generation"]
    assert recurrent["state_MiB"] > 0 < attention["state_MiB"]
    assert all(row["tokens_per_s"] > 0 for row in found["generation"])


def draws(call: Call, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page shows is what the lines that draw it print."""
    page = (ROOT / "docs" / f"{name.upper()}.md").read_text()
    lines = [
        each.words[2:]
        for each in of_kind("benchmark")
        if each.words[1] == f"benchmarks/{name}.py" and "--draw" in each.words
    ]
    assert lines
    for words in lines:
        capsys.readouterr()
        given = dict(zip(words[::2], words[1::2], strict=True))
        call(name, "--draw", ROOT / given["--draw"], "--picture", folder / "drawn.png")
        assert (folder / "drawn.png").stat().st_size > 5_000
        table = capsys.readouterr().out.partition("\n\n")[0]
        assert table.count("\n") > 3
        assert table.strip() in page


@runs("likelihood")
def test_likelihood_agrees_with_evaluate(call: Call, world: World, tmp_path: Path) -> None:
    words = ("-r", world.reference, "--contigs", "chrA", "-m", world.pretrained, "--out", tmp_path / "likelihood.json")
    (row,) = call("likelihood", *words)["contigs"]
    assert row["bits_per_base_bigWig"] == pytest.approx(row["bits_per_base_evaluate"], abs=5e-5)
    assert row["bases"] == open_reference(str(world.reference)).contigs["chrA"]
    assert 100 < row["peak_MiB"] < 4096


def test_likelihood_that_disagrees_ends_with_1(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    likelihood = importlib.import_module("likelihood")
    figures = {"bits_per_base_bigWig": 1.9001, "bits_per_base_evaluate": 1.9}
    monkeypatch.setattr(likelihood, "measured", lambda *given: figures)
    monkeypatch.setattr(sys, "argv", ["likelihood.py", "-r", str(world.reference), "--contigs", "chrA"])
    with pytest.raises(SystemExit, match="1"):
        likelihood.main()


@runs("score_kills")
def test_a_kill_of_scoring_is_told_with_what_it_was_of(scoring: Words, tmp_path: Path) -> None:
    out = tmp_path / "kills.json"
    given = dict(zip(scoring[1::2], scoring[2::2], strict=True))
    words = [
        "-r",
        given["-r"],
        "-i",
        given["-i"],
        "-m",
        given["-m"],
        "--kills",
        1,
        "--seed",
        3,
        "--suffix",
        ".vcf",
        "--out",
        out,
    ]
    words += ["--", "--window", 64, "--device", "cpu", "--shard-size", 40]
    command = [str(word) for word in (sys.executable, BENCHMARKS / "score_kills.py", *words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["command"].split() == ["python", "benchmarks/score_kills.py", *(str(word) for word in words)]
    assert found["model"] == {"name": "model", "weights": weights_fingerprint(str(given["-m"]))}
    assert found["versions"]["genomamba"] == genomamba.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["summary"] == {"records": 160, "alleles": 160, "scored": 160, "by_status": {"OK": 160}}
    assert found["records"] == 160
    assert found["identical"]
    assert len(found["kills"]) == 1
    assert all(each == {"sha256": found["sha256"], "records": 160} for each in found["outputs"])
    assert found["outputs"]


@runs("loader")
def test_loading_stands_beside_the_usual_ways(call: Call, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    found = call("loader", "--rounds", 1, "--bases", 1_100_000, "--out", tmp_path / "loader.json")
    torch.set_num_threads(threads)
    speeds, ratios = found["Mbp_per_s"], found["ratios"]
    for name, other in (("ids_1Mb", "pyfaidx_lookup"), ("batches_1kb", "caduceus_path")):
        assert ratios[name] == pytest.approx(speeds[name]["genomamba"] / speeds[name][other])
    assert found["Mbp_per_s_per_worker_131kb"] == speeds["batches_131kb"]["genomamba_1_worker"] > 0


@runs("index_races")
def test_an_index_raced_for_is_right(tmp_path: Path) -> None:
    words = ("--contigs", 60, "--processes", 2, "--rounds", 1, "--fetches", 400)
    found = in_a_process("index_races", tmp_path, *words)
    assert found["processes_right"] == [2, 2]
    assert (found["fetches_wrong_after_fork"], found["stale_read"]) == ([0, 400], [0, 60])


@runs("kills")
def test_a_save_that_is_killed_leaves_the_one_before(tmp_path: Path) -> None:
    """The runs that are killed in training have tests of their own, with other kills."""
    found = in_a_process("kills", tmp_path, "--runs", 0, "--save-kills", 1)
    assert [save["loads"] for save in found["saves"] if save["unfinished_file"]] == [True]


def in_a_process(name: str, folder: Path, *words: object) -> Any:
    """The JSON of a benchmark that starts processes itself."""
    out = folder / "found.json"
    command = [str(word) for word in (sys.executable, BENCHMARKS / f"{name}.py", *words, "--out", out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".tsv", ".tsv.gz", ".parquet"])
def test_records_of_every_output_are_counted(
    run_cli: RunCli, scoring: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    output = tmp_path / f"scored{suffix}"
    assert run_cli(*scoring, "--batch-size", 64, "-o", output).code == 0
    assert importlib.import_module("score_kills").count_records(output) == 160


@runs("cpu_step")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process's peak of memory")
def test_a_step_stands_beside_that_of_transformers(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    threads = torch.get_num_threads()
    small = "--batch 1 --length 32 --threads 1 --steps 1 --turns 1".split()
    found = call("cpu_step", *small, "--out", tmp_path / "cpu_step.json")
    torch.set_num_threads(threads)
    (case,) = found["cases"]
    ours, theirs = case["genomamba"], case["transformers"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)  # the same weights and tokens
    assert ours["tokens_per_second"] == pytest.approx(32 / ours["fastest_step"])
    assert case["times_faster"] == pytest.approx(theirs["fastest_step"] / ours["fastest_step"])
    assert case["floor_seconds"] > 0


@runs("ddp")
def test_a_run_on_one_device_is_timed(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes take as many times longer; `test_several_devices` runs them."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    small = "--cpu --ways one --steps 10 --window 32 --batch-size 2 --d-model 8 --n-layer 1".split()
    found = call("ddp", *small, "--out", tmp_path / "ddp.json")
    assert found["one"]["Mbp_per_s"] * found["one"]["step_ms"] * 1e3 == pytest.approx(2 * 32)
    assert found["device"] == "cpu"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a series one after the other; `test_side_by_side` has those in processes of their own."""

    def serially(jobs: Iterable[Any], count: int, done: Call, **_: Any) -> dict[str, str]:
        left = list(jobs)
        while left:
            job = left.pop(0)
            left += done(job, job.work(*job.args))
        return {}

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(importlib.import_module("series"), "side_by_side", serially)


@runs("clinvar")
@pytest.mark.usefixtures("in_this_process")
def test_a_method_on_variants_is_tabled(world: World, tmp_path: Path, call: Call) -> None:
    words: list[object] = ["-r", world.reference, "-i", world.labelled, "--model", world.pretrained]
    words += ["--train", "AAA1", "BBB2", "--valid", "CCC3", "--test", "DDD4", "--methods", "probe", "--lr", "1e-3"]
    words += ["--set", "window=32", "--device", "cpu", "--out", tmp_path / "clinvar.json"]
    found = call("clinvar", *words)
    assert found["not_run"] == {}
    (run,) = found["methods"]["probe"]["seeds"]
    assert (run["variants"], run["positives"]) == (40, 20)
    assert 0 <= run["overall"]["AUROC"][0] <= 1
    table = (tmp_path / "clinvar.md").read_text()
    assert found["commands"] == [" ".join(["python", "benchmarks/clinvar.py", *(str(word) for word in words)])]
    assert found["commands"][0] in table
    assert f"{run['overall']['AUROC'][0]:.3f}" in table


@runs("classification")
@pytest.mark.usefixtures("in_this_process")
def test_a_task_of_sequences_is_tabled(tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    with gzip.open(folder / "gc.csv.gz", "wt", newline="") as stream:
        csv.writer(stream).writerows([("sequence", "label", "split"), *rows(per_class=20)])
    small = "architecture.d_model=8 architecture.n_layer=1 epochs=1 batch_size=8".split()
    words = [
        folder,
        "--starts",
        "scratch",
        "--set",
        *small,
        "--device",
        "cpu",
        "--out",
        tmp_path / "classification.json",
    ]
    found = call("classification", *words)
    assert found["not_run"] == {}
    (run,) = found["results"]["gc"]["scratch"]["seeds"]
    assert run["sequences"] == 8
    assert -1 <= run["test"]["MCC"][0] <= 1
    assert found["commands"][0].startswith(f"python benchmarks/classification.py {folder} --starts scratch")
    assert "| gc | 8 |" in (tmp_path / "classification.md").read_text()


@runs("scan_instructions")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_the_compiler_says_what_it_made() -> None:
    compiling = {name: value for name, value in environment().items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BENCHMARKS / "scan_instructions.py")]
    done = subprocess.run(command, env=compiling, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [name for name, *_ in kernels] == [
        *("state", "output", "output, keeping fine states", "rebuild", "gradient", "gradient of all of L")
    ]
    assert all(0 < int(registers) < 256 and float(special) >= 1 for _, registers, _, _, special, _ in kernels)


ON_A_GPU = ["crossover", "generation", "scan", "train_family", "train_step"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which they would measure for long")
@pytest.mark.parametrize("name", ON_A_GPU)
def test_without_a_gpu_nothing_is_measured(
    name: str, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(name, "--commit", "tried", "--out", tmp_path / f"{name}.json") is None
    assert capsys.readouterr().out == "no NVIDIA GPU here: nothing measured\n"


# The constants that say what is measured, as Python.
SMALL = {
    "crossover": "SIZES = {'gpu': Sizes([64], [64], 128, 1024, 3.0)}",
    "generation": "MODELS = {'mamba': ({'layers': 'mamba'}, [1_100], None)}",
    "scan": "SHAPES = [(1, 256, 8192, 16, 100.0, 100.0)]",
    "train_family": "SIZES = [(2, 128), (1, 256), (1, 512)]",
    "train_step": "SIZES = [(128, 2, 2, 256, False, None, None, None)]",
}
SMALLER = """
import {name}
given = dict({name}.__dict__)
exec({small!r}, given)
for constant in {constants!r}:
    assert hasattr({name}, constant)
    setattr({name}, constant, given[constant])
{name}.main()
"""


@runs(*ON_A_GPU)
@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_small_measurement_on_a_gpu(name: str, tmp_path: Path) -> None:
    """In a process of its own, as it is run, for tests have other settings of torch."""
    out = tmp_path / f"{name}.json"
    program = SMALLER.format(name=name, small=SMALL[name], constants=re.findall(r"([A-Z]+) =", SMALL[name]))
    command = [sys.executable, "-c", program, "--commit", "tried", "--out", str(out)]
    paths = os.pathsep.join([str(BENCHMARKS), str(ROOT)])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["machine"]["commit"] == "tried"
    assert found["machine"]["device"] == torch.cuda.get_device_name()
    figures = [value for key, value in leaves(found) if re.search(r"_per_s$|(?<!floor)_ms$", key)]
    assert figures
    assert all(value > 0 for value in figures)


def leaves(found: Any, key: str = "") -> list[tuple[str, float]]:
    """Every number, with the name of the field that it stands in."""
    if isinstance(found, dict):
        return [leaf for name, value in found.items() for leaf in leaves(value, name)]
    if isinstance(found, list):
        return [leaf for value in found for leaf in leaves(value, key)]
    return [(key, found)] if isinstance(found, (int, float)) and not isinstance(found, bool) else []


def environment() -> dict[str, str]:
    """For a process of its own, in which this package is found."""
    return os.environ | {"PYTHONPATH": str(ROOT)}
