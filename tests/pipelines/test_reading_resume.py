"""Commands that read a model along regions, killed anywhere and resumed, end with the bytes of a run left in peace."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cli_process import start
from world import CliResult, RunCli, Words, write_reference

from genomamba.model.backbone import Backbone, CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.model.sequence_heads import SequenceModel, TokenModel
from genomamba.pipelines import embed_shards, sharded
from genomamba.pipelines.cli import main
from genomamba.pipelines.shards import Shards, work_folder

REGIONS, IN_A_SHARD = 80, 5
SHARDS = REGIONS // IN_A_SHARD
SMALL = ModelConfig(d_model=8, n_layer=1, d_state=4)


class Case(NamedTuple):
    """A command, and the files that it writes where -o is the first."""

    words: str
    output: str
    files: tuple[str, ...]
    done: str  # what it says of three shards


CASES = {
    "table": Case("predict -m {classes}", "o.tsv.gz", ("o.tsv.gz",), "15 of 80 sequences predicted"),
    "parquet": Case("predict -m {values}", "o.parquet", ("o.parquet",), "15 of 80 sequences predicted"),
    "tracks": Case("predict -m {tracks}", "o.bw", ("o.cage.bw", "o.atac.bw"), "960 of 5,120 bases read"),
    "vectors": Case("embed -m {classes} --pool max", "o.npz", ("o.npz",), "15 of 80 regions embedded"),
    "vectors of bases": Case("embed -m {causal} --pool none", "o.parquet", ("o.parquet",), "960 of 5,120 bases read"),
    "bits": Case("likelihood -m {causal} --both-strands", "o.bw", ("o.bw",), "960 of 5,120 bases read"),
    "masked bits": Case("likelihood -m {masked}", "o.tsv.gz", ("o.tsv.gz",), "960 of 5,120 bases read"),
}
Run = Callable[..., CliResult]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> Path:
    """Of the inputs."""
    made = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    save_model(SequenceModel(SMALL, classes=("no", "yes")), made / "classes", card="", provenance={})
    save_model(SequenceModel(SMALL), made / "values", card="", provenance={})
    save_model(TokenModel(SMALL, ("cage", "atac")), made / "tracks", card="", provenance={})
    save_model(CausalLM(SMALL), made / "causal", card="", provenance={})
    both_ways = replace(SMALL, bidirectional=True)
    save_model(MaskedLM(both_ways), made / "masked", card="", provenance={"window": 64})
    write_reference(made / "genome.fa", genome)
    lines = [f"chr{'AB'[at % 2]}\t{100 * at}\t{100 * at + 64}\tr{at}\t0\t{'+-'[at % 3 == 0]}" for at in range(REGIONS)]
    (made / "x.bed").write_text("\n".join(lines) + "\n")
    return made


def words_of(case: Case, folder: Path) -> Words:
    command, *rest = case.words.format(**{path.name: path for path in folder.iterdir() if path.is_dir()}).split()
    fixed = ("-r", folder / "genome.fa", "-b", folder / "x.bed", "--device", "cpu", "--shard-size", IN_A_SHARD)
    return command, *rest, *fixed


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def run(run_cli: RunCli, case: Case, folder: Path) -> Run:
    return lambda out, *more: run_cli(*words_of(case, folder), "-o", out, *more)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], dict[str, bytes]]:
    """Outputs of runs that nothing disturbed."""
    known: dict[str, dict[str, bytes]] = {}

    def outputs(case: Case) -> dict[str, bytes]:
        if case.words not in known:
            place = tmp_path_factory.mktemp("whole")
            assert main([str(word) for word in (*words_of(case, folder), "-o", place / case.output)]) == 0
            known[case.words] = content(place)
            assert known[case.words].keys() == set(case.files)
        return known[case.words]

    return outputs


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log"}


def killed_after(words: Words, out: Path, more: int) -> int | None:
    """Starts, and kills the process when it has done so many more shards; its exit code."""
    folder = work_folder(str(out))
    done = len(list(folder.glob("shard-*")))
    process = start((*words, "-o", out, *(["--resume"] if done else [])), out.parent / "log")
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while process.is_alive() and len(list(folder.glob("shard-*"))) < done + more and time.monotonic() < deadline:
        time.sleep(0.0005)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("case", [name for name in CASES if name not in ("parquet", "masked bits")], indirect=True)
def test_killed_and_resumed(
    case: Case, run: Run, folder: Path, whole: Callable[[Case], dict[str, bytes]], tmp_path: Path
) -> None:
    out, words = tmp_path / case.output, words_of(case, folder)
    killed = 0
    for more in (1, 2, 1):
        code = killed_after(words, out, more)
        if code == 0:
            break  # it was faster than its killer
        assert code == -signal.SIGKILL, (tmp_path / "log").read_text()
        killed += 1
        assert content(tmp_path).items() <= whole(case).items()  # never a part of a file
    assert killed >= 1
    if code != 0:
        result = run(out, "--resume")
        assert result.code == 0, result.err
    assert content(tmp_path) == whole(case)
    assert not work_folder(str(out)).exists()
    again = run(out, "--resume")
    assert again.code == 2
    assert again.err.startswith(f"{tmp_path / case.files[0]}: the output exists; "), again.err
    assert content(tmp_path) == whole(case)


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing of ours catches it."""


def at_the_fourth_shard(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Until the monkeypatch is undone, ``act`` is called before a run keeps its fourth shard."""
    save, calls = Shards.save, 0

    def saving(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            act()
        return save(*args)

    monkeypatch.setattr(Shards, "save", saving)


def die() -> None:
    raise Killed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_done(
    number: signal.Signals,
    case: Case,
    run: Run,
    whole: Callable[[Case], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / case.output
    with monkeypatch.context() as patch:
        at_the_fourth_shard(patch, lambda: signal.raise_signal(number))
        result = run(out)
    assert result.code == 128 + number
    assert result.err.splitlines()[-1] == (
        f"{out}: stopped by {number.name} with {case.done}; the same command with --resume goes on"
    )
    assert {path.name for path in tmp_path.iterdir()} == {f"{case.output}.shards"}
    refused = run(out)
    assert refused.code == 2
    assert "an unfinished run left what it had done here; go on with --resume" in refused.err
    kept: list[int] = []
    save = Shards.save
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "save", lambda own, at, what: (kept.append(at), save(own, at, what))[1])
        result = run(out, "--resume")
    assert result.code == 0, result.err
    assert kept == list(range(3, SHARDS))  # what was done is not done again
    assert content(tmp_path) == whole(case)


@pytest.fixture
def unfinished(case: Case, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run that was killed after three shards."""
    with monkeypatch.context() as patch:
        at_the_fourth_shard(patch, die)
        with pytest.raises(Killed):
            run(tmp_path / case.output)
    return tmp_path / case.output


def test_killed_while_outputs_appear(
    case: Case, run: Run, whole: Callable[[Case], dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first, replace = tmp_path / case.output, tmp_path / case.files[0], os.replace
    for moment in ("before", "after"):

        def killed(source: Any, target: Any, moment: str = moment) -> None:
            if target != first:
                return replace(source, target)
            if moment == "after":
                replace(source, target)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(Killed):
                run(out, *(("--resume",) if moment == "after" else ()))
        assert first.exists() == (moment == "after")
    assert run(out, "--resume").code == 0
    assert content(tmp_path) == whole(case)


def test_two_processes_do_not_work_on_one_output(run: Run, unfinished: Path) -> None:
    facts = json.loads((work_folder(str(unfinished)) / "manifest.json").read_text())["facts"]
    with suppress(Killed), Shards(str(unfinished), facts, resume=True, force=False):
        result = run(unfinished, "--resume")
        assert result.code == 2
        assert "another process is at work on it" in result.err
        raise Killed  # or the folder would go
    assert run(unfinished, "--resume").code == 0


def test_a_run_goes_on_only_as_it_began(
    run: Run, case: Case, unfinished: Path, folder: Path, genome: dict[str, str], tmp_path: Path
) -> None:
    before = content(work_folder(str(unfinished)))
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.bed").write_text((folder / "x.bed").read_text().replace("\tr3\t", "\tr_3\t"))
    write_reference(other / "genome.fa", {**genome, "chrC": "ACGT"})
    began = "the run that is to go on began with"
    for words, problem in (
        (("--shard-size", 9), f"shard_size=9: {began} 5; give what it began with, or begin anew with --force"),
        (("--rna",), f"rna=True: {began} False"),
        (("-b", other / "x.bed"), "regions="),
        (("-r", other / "genome.fa"), "reference="),
        (("-m", folder / "other"), "weights="),
    ):
        if words == ("-m", folder / "other"):
            words = ("-m", of_other_weights(case, folder, other))
        result = run(unfinished, "--resume", *words)
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith(f"{unfinished}.shards/manifest.json: {problem}"), result.err
    assert content(work_folder(str(unfinished))) == before


def of_other_weights(case: Case, folder: Path, place: Path) -> Path:
    """A model like the case's."""
    from genomamba.model.folder import load_model

    model = load_model(case.words.format(**{path.name: path for path in folder.iterdir()}).split()[2])
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    save_model(model, place / "model", card="", provenance={"window": 64})
    return place / "model"


def test_a_shard_that_was_cut_is_refused(run: Run, unfinished: Path) -> None:
    path = next(work_folder(str(unfinished)).glob("shard-000000001.*"))
    os.truncate(path, path.stat().st_size - 9)
    before = sorted(work_folder(str(unfinished)).glob("shard-*"))
    result = run(unfinished, "--resume")
    assert result.code == 2
    assert f"{path}: it is damaged (" in result.err
    assert not unfinished.exists()
    assert sorted(work_folder(str(unfinished)).glob("shard-*")) == before  # found before anything else was worked out


def at_hand(recipe: Any, parts: Iterable[tuple[int, Any]], save: Callable[..., None], devices: Sequence[str]) -> None:
    """What other processes do, done by this one, the last shard first."""
    assert devices == ["cpu"] * 3
    for number, part in reversed(list(parts)):
        own, sent = pickle.loads(pickle.dumps((recipe, part)))
        work = own.make(torch.device("cpu"))
        save(number, work(sent), work.halved)


def test_other_processes_write_what_one_writes(
    run: Run, unfinished: Path, case: Case, whole: Callable[[Case], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "work_on_devices", at_hand)
    result = run(unfinished, "--resume", "--devices", 3)
    assert result.code == 0, result.err
    assert "on 3 devices" in result.err
    assert content(unfinished.parent) == whole(case)


def test_only_the_processes_put_the_model_on_their_devices(
    run_cli: RunCli,
    folder: Path,
    whole: Callable[[Case], dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    embedder = embed_shards.Embedder

    def elsewhere(*given: Any) -> None:
        assert made == []
        at_hand(*given)
        assert len(made) == SHARDS
        made.clear()

    monkeypatch.setattr(sharded, "work_on_devices", elsewhere)
    monkeypatch.setattr(embed_shards, "Embedder", lambda *a, **k: (made.append(a), embedder(*a, **k))[1])
    case = CASES["vectors of bases"]
    result = run_cli(*words_of(case, folder), "-o", tmp_path / case.output, "--devices", 3)
    assert result.code == 0, result.err
    assert made == []
    assert content(tmp_path) == whole(case)


def test_two_processes_write_what_one_writes(
    run_cli: RunCli, folder: Path, whole: Callable[[Case], dict[str, bytes]], tmp_path: Path
) -> None:
    case = CASES["tracks"]
    result = run_cli(*words_of(case, folder), "-o", tmp_path / case.output, "--devices", 2)
    assert result.code == 0, result.err
    assert content(tmp_path) == whole(case)


@pytest.mark.gpu
def test_two_gpus_write_what_one_writes(case: Case, run: Run, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    found = []
    for devices in (1, "auto"):
        result = run(tmp_path / case.output, "--device", "gpu", "--devices", devices, "--force")
        assert result.code == 0, result.err
        found.append(content(tmp_path))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["table", "bits"])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--resume",), "resume: stdout cannot be resumed; give a file as -o\n"),
        (("--devices", 2), "devices=2: stdout keeps no shards; give a file as -o\n"),
    ],
)
def test_stdout_keeps_no_shards(name: str, words: Words, line: str, run_cli: RunCli, folder: Path) -> None:
    result = run_cli(*words_of(CASES[name], folder), "-o", "-", *words)
    assert (result.code, result.out, result.err) == (2, "", line)


def test_batches_and_shards_change_nothing_but_rounding(run_cli: RunCli, folder: Path, tmp_path: Path) -> None:
    lengths = np.random.default_rng(3).integers(1, 300, 60)
    bed = "".join(f"chrA\t{at}\t{at + size}\n" for at, size in enumerate(lengths))
    (tmp_path / "y.bed").write_text(bed)
    given = ("-r", folder / "genome.fa", "-b", tmp_path / "y.bed", "-m", folder / "values", "--device", "cpu", "-o")
    out = tmp_path / "o.parquet"
    for command, column in (("predict", "predicted"), ("embed", "embedding")):
        found = []
        for words in ((), ("--batch-size", 1), ("--batch-size", 7), ("--shard-size", 9)):
            result = run_cli(command, *given, out, "--force", *words)
            assert result.code == 0, result.err
            found.append(np.array(pq.read_table(out)[column].to_pylist()))
        assert np.std(found[0]) > 0
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-5)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds 300 bases."""
    fits = SequenceModel.forward

    def small(self: SequenceModel, ids: torch.Tensor, length: torch.Tensor | None = None) -> torch.Tensor:
        if ids.numel() > 300:
            raise torch.OutOfMemoryError
        return fits(self, ids, length)

    monkeypatch.setattr(SequenceModel, "forward", small)


@pytest.mark.usefixtures("cramped")
def test_batches_that_do_not_fit_are_halved(
    run_cli: RunCli, folder: Path, whole: Callable[[Case], dict[str, bytes]], tmp_path: Path
) -> None:
    words = words_of(CASES["table"], folder)
    result = run_cli(*words, "-o", tmp_path / "o.tsv.gz")
    assert result.code == 0, result.err
    assert re.search(r"batches of \d+ bases did not fit the memory; they were halved to 192\n", result.err), result.err
    with gzip.open(tmp_path / "o.tsv.gz", "rt") as found:
        assert len(found.readlines()) == 1 + REGIONS
    for name, more, line in (
        ("fixed", ("--batch-size", 5), "5 sequences of up to 64 bases do not fit the memory; give a smaller --batch-s"),
        ("long", ("--region", "chrA:1-301"), "1 sequences of up to 301 bases do not fit the memory; leave sequences "),
    ):
        given = words if name == "fixed" else [word for word in words if word not in ("-b", folder / "x.bed")]
        refused = run_cli(*given, *more, "-o", tmp_path / f"{name}.tsv")
        assert refused.code == 2
        assert refused.err.splitlines()[-1].startswith(f"batch_size: {line}"), refused.err
        assert {path.name for path in tmp_path.iterdir()} == {"o.tsv.gz"}


@pytest.mark.parametrize("command", ["score", "predict", "embed", "likelihood"])
def test_help_says_where_a_resumed_output_may_differ(run_cli: RunCli, command: str) -> None:
    text = " ".join(run_cli(command, "--help").out.split())
    assert "same to the byte, but for rounding where batches had to be halved in one run and not in the other." in text


WHERE = dict.fromkeys(("tracks", "vectors", "vectors of bases"), ("file", "processes"))
WHERE |= dict.fromkeys(("bits", "masked bits"), ("file", "processes", "stdout"))


@pytest.mark.parametrize(("name", "where"), [(name, where) for name, each in WHERE.items() for where in each])
def test_a_window_that_does_not_fit_is_told(
    run_cli: RunCli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(Backbone, "forward", lambda *_, **__: raising(full))
    monkeypatch.setattr(sharded, "work_on_devices", at_hand)
    out = "-" if where == "stdout" else tmp_path / CASES[name].output
    more = ("--devices", 3) if where == "processes" else ()
    remedy = "give a smaller one" + ", or a smaller --batch-size" * (name == "masked bits")
    result = run_cli(*words_of(CASES[name], folder), "--window", 32, "-o", out, *more)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-1] == f"window=32: so many bases do not fit the memory; {remedy}"
    assert list(tmp_path.iterdir()) == []


def raising(error: Exception) -> None:
    raise error
