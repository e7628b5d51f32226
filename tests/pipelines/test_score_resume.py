"""Scoring that is killed anywhere and resumed ends with the bytes of scoring that nothing disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import start
from world import CliResult, RunCli, labelled_records, write_reference, write_vcf

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.pipelines import shards
from genomamba.scoring.variants import VariantScorer

SHARDS = 8  # of 20 records
Score = Callable[..., CliResult]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> tuple[object, ...]:
    """The words of a command line without its output."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    save_model(CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4)), folder / "model", card="", provenance={})
    sizes = {name: len(sequence) for name, sequence in genome.items()}
    records = labelled_records(genome)
    records[3] = "\t".join([*records[3].split("\t")[:4], "<DEL>", *records[3].split("\t")[5:]])
    source = write_vcf(folder / "in.vcf", sorted(records, key=lambda r: (r.split()[0], int(r.split()[1]))), sizes)
    reference = write_reference(folder / "genome.fa", genome)
    return ("score", "-r", reference, "-m", folder / "model", "-i", source, "--window", 256, "--shard-size", 20)


@pytest.fixture
def score(run_cli: RunCli, inputs: tuple[object, ...]) -> Score:
    return lambda out, *more: run_cli(*inputs, "-o", out, *more)


@pytest.fixture(scope="module")
def whole(inputs: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Outputs of runs that nothing disturbed, by suffix, with the index."""
    folder = tmp_path_factory.mktemp("whole")
    process = start((*inputs, "-o", folder / "out.vcf.gz"), folder / "log")
    process.join(120)
    assert process.exitcode == 0, (folder / "log").read_text()
    (folder / "log").unlink()
    assert {path.name for path in folder.iterdir()} == {"out.vcf.gz", "out.vcf.gz.tbi"}
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log"}


def kill_after(words: tuple[object, ...], out: Path, more: int, pause: float) -> int | None:
    """Starts, and kills the process ``pause`` seconds after it has done so many more shards."""
    folder = shards.work_folder(str(out))
    done = len(list(folder.glob("shard-*")))
    process = start(words, out.parent / "log")
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while process.is_alive() and len(list(folder.glob("shard-*"))) < done + more and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(pause)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_and_resumed(
    seed: int, inputs: tuple[object, ...], whole: dict[str, bytes], tmp_path: Path
) -> None:
    dice, out = random.Random(seed), tmp_path / "out.vcf.gz"
    killed, resume = 0, ()
    for _ in range(3):
        killed += kill_after((*inputs, "-o", out, *resume), out, dice.randint(1, 2), dice.random() * 0.01) == -9
        assert not out.exists() or content(tmp_path).items() <= whole.items()  # never a part of it
        resume = ("--resume",) if shards.work_folder(str(out)).exists() else ()
        if out.exists():
            break
    assert killed >= 1
    if resume:
        process = start((*inputs, "-o", out, "--resume"), tmp_path / "log")
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert content(tmp_path) == whole
    assert not shards.work_folder(str(out)).exists()


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing of ours catches it."""


def test_killed_between_the_output_and_its_index(
    score: Score, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out.vcf.gz", os.replace

    def killed_after_the_output(source: Any, target: Any) -> None:
        replace(source, target)
        if target == out:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_after_the_output)
        with pytest.raises(Killed):
            score(out)
    assert out.exists()
    assert score(out, "--resume").code == 0
    assert content(tmp_path) == whole


@pytest.fixture(params=["manifest.json", "publishing", "shard-000000000.json"])
def killed_while_removing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, score: Score
) -> Callable[..., None]:
    """Scores, and is killed when a folder that is to be removed has lost one file."""

    def removed(folder: Any, **options: Any) -> None:
        if Path(folder).exists():
            (Path(folder) / request.param).unlink(missing_ok=True)
            raise Killed

    def killed(*words: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(shards.shutil, "rmtree", removed)
            with pytest.raises(Killed):
                score(*words)

    return killed


@pytest.mark.parametrize("flag", ["--resume", "--force"])
def test_killed_while_the_finished_work_is_removed(
    flag: str, killed_while_removing: Callable[..., None], score: Score, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out.vcf.gz"
    killed_while_removing(out)
    assert content(tmp_path) == whole
    again = score(out, flag)
    if flag == "--resume":
        assert (again.code, again.err.startswith(f"{out}: the output exists; ")) == (2, True)
    else:
        assert again.code == 0, again.err
    assert content(tmp_path) == whole
    assert {path.name for path in tmp_path.iterdir()} == set(whole)


def test_killed_while_unfinished_work_is_removed(
    killed_while_removing: Callable[..., None], score: Score, unfinished: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed_while_removing(unfinished, "--force")
    assert score(unfinished).code == 0
    assert {path.name for path in tmp_path.iterdir()} == set(whole)
    assert content(tmp_path) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_done(
    number: signal.Signals, score: Score, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, call, calls = tmp_path / "out.vcf.gz", VariantScorer.__call__, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            signal.raise_signal(number)
        return call(*args)

    with monkeypatch.context() as patch:
        patch.setattr(VariantScorer, "__call__", interrupted)
        result = score(out)
    assert result.code == 128 + number
    assert result.err.splitlines()[-1] == (
        f"{out}: stopped by {number.name} with 60 of 160 records scored; the same command with --resume goes on"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"out.vcf.gz.shards"}
    done = {path.name for path in (tmp_path / "out.vcf.gz.shards").iterdir()}
    assert done == {"manifest.json", *(f"shard-{number:09d}.json" for number in range(3))}

    refused = score(out)
    assert refused.code == 2
    assert "an unfinished run left what it had done here; go on with --resume" in refused.err
    calls = 0
    with monkeypatch.context() as patch:
        patch.setattr(VariantScorer, "__call__", counted := Counted(call))
        result = score(out, "--resume")
    assert result.code == 0, result.err
    assert counted.calls == SHARDS - 3  # what was done is not done again
    assert content(tmp_path) == whole
    assert "SKIP_SYMBOLIC                      1" in result.err
    assert "160 records, 160 alleles, 159 scored" in result.err


class Counted:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __get__(self, owner: Any, kind: type) -> Callable[..., Any]:
        def method(*args: Any) -> Any:
            self.calls += 1
            return self.function(owner, *args)

        return method


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_run_that_prints_leaves_nothing(
    number: signal.Signals, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VariantScorer, "__call__", lambda *_: signal.raise_signal(number))
    result = score("-")
    assert result.code == 128 + number
    assert result.err.splitlines()[-1] == {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[number]


@pytest.fixture
def unfinished(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run that was killed after three shards."""
    out, call, calls = tmp_path / "out.vcf.gz", VariantScorer.__call__, 0

    def killed(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return call(*args)

    with monkeypatch.context() as patch:
        patch.setattr(VariantScorer, "__call__", killed)
        with pytest.raises(Killed):
            score(out)
    return out


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--window", 128), "window=128: the run that is to go on began with 256"),
        (("--batch-size", 8), "batch_size=8: the run that is to go on began with auto"),
        (("--reuse-state", "false"), "reuse_state=False: the run that is to go on began with True"),
        (("--shard-size", 10), "shard_size=10: the run that is to go on began with 20"),
        (("--rna",), "rna=True: the run that is to go on began with False"),
        (("-i", "input"), "input="),
        (("-r", "reference"), "reference="),
        (("-m", "model"), "weights="),
    ],
)
def test_a_run_goes_on_only_as_it_began(
    words: tuple[object, ...],
    field: str,
    score: Score,
    unfinished: Path,
    inputs: tuple[Any, ...],
    genome: dict[str, str],
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if words == ("-i", "input"):
        (other / "in.vcf").write_text(inputs[6].read_text().replace("AAA1_0", "AAA1_x"))
        words = ("-i", other / "in.vcf")
    elif words == ("-r", "reference"):
        words = ("-r", write_reference(other / "genome.fa", {**genome, "chrC": "ACGT"}))
    elif words == ("-m", "model"):
        torch.manual_seed(1)
        save_model(CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4)), other / "model", card="", provenance={})
        words = ("-m", other / "model")
    before = content(shards.work_folder(str(unfinished)))
    result = score(unfinished, "--resume", *words)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"{unfinished}.shards/manifest.json: {field}"), result.err
    assert content(shards.work_folder(str(unfinished))) == before
    assert not unfinished.exists()


def test_force_begins_anew(score: Score, unfinished: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert score(unfinished, "--force").code == 0
    assert content(tmp_path) == whole
    refused = score(unfinished, "--resume", "--force")
    assert refused.code == 2
    assert "give one of them" in refused.err


def test_what_is_not_ours_is_never_removed(score: Score, tmp_path: Path) -> None:
    out = tmp_path / "out.vcf.gz"
    (tmp_path / "out.vcf.gz.shards").mkdir()
    (tmp_path / "out.vcf.gz.shards" / "thesis.tex").write_text("years of work")
    for flag in ((), ("--force",), ("--resume",)):
        result = score(out, *flag)
        assert result.code == 2
        assert "no manifest of ours" in result.err
    assert (tmp_path / "out.vcf.gz.shards" / "thesis.tex").exists()


def test_an_output_of_others_is_not_replaced_by_resuming(score: Score, unfinished: Path) -> None:
    unfinished.write_text("made meanwhile")
    result = score(unfinished, "--resume")
    assert result.code == 2
    assert "the output exists" in result.err
    assert unfinished.read_text() == "made meanwhile"


def test_a_damaged_shard_is_refused(score: Score, unfinished: Path) -> None:
    path = shards.work_folder(str(unfinished)) / "shard-000000001.json"
    path.write_text(path.read_text()[:-9])
    result = score(unfinished, "--resume")
    assert result.code == 2
    assert f"{path}: it is damaged" in result.err


def test_two_processes_do_not_work_on_one_output(score: Score, unfinished: Path) -> None:
    folder = shards.work_folder(str(unfinished))
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    with suppress(Killed), shards.Shards(str(unfinished), facts, resume=True, force=False):
        for flag in ("--resume", "--force"):
            result = score(unfinished, flag)
            assert result.code == 2
            assert "another process is at work on it" in result.err
        raise Killed  # or the folder would go
    assert score(unfinished, "--resume").code == 0


def test_stdout_cannot_be_resumed(score: Score) -> None:
    result = score("-", "--resume")
    assert (result.code, result.err) == (2, "resume: stdout cannot be resumed; give a file as -o\n")
