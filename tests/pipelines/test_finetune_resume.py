"""Fine-tuning that is stopped goes on to the very bits of the run that was not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_process import start
from sequence_tables import SMALL, rows, write_table
from world import CliResult, RunCli, World

from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.pipelines.cli import main
from genomamba.tasks import checkpoint_io
from genomamba.tasks.sequences import SequenceTask
from genomamba.tasks.tracks import TrackTask
from genomamba.tasks.variants import VariantTask

pytest.importorskip("pybigtools")
# 80 variants: an epoch is two steps of 32 and one of 16.
VARIANTS = (
    "--train AAA1 BBB2 --valid CCC3 --window 32 --epochs 4 --architecture.d_model 8 --architecture.n_layer 1"
    " --architecture.dropout 0.2 --head.dropout 0.2 --device cpu --seed 5"
).split()
SEQUENCES = (
    *SMALL,
    *"--epochs 4 --batch-size 24 --average 0.7 --architecture.dropout 0.2 --augment.mutate 0.1 --class-weights balanced"
    " --smoothing 0.1 --patience 3 --device cpu --seed 5".split(),
)
TRACKS = (
    "--valid chrB:1-600 --test chrB:601-1200 --window 64 --epoch-windows 20 --batch-size 8 --epochs 4 --average 0.7"
    " --architecture.d_model 8 --architecture.n_layer 1 --architecture.dropout 0.2 --device cpu --seed 5"
).split()
TASKS: dict[str, Any] = {"variants": VariantTask, "sequences": SequenceTask, "tracks": TrackTask}
KINDS = list(TASKS)
Words = tuple[object, ...]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the process has that is killed: sums are rounded by how they are divided."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def given(world: World, genome: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Words]:
    """A command line of each, without -o."""
    folder = tmp_path_factory.mktemp("resume")
    table, track = write_table(folder / "t.csv", rows()), folder / "gc.bw"
    values = {name: np.array([base in "GC" for base in text], dtype=np.float32) for name, text in genome.items()}
    pieces = [TrackPiece(name, 0, own) for name, own in values.items()]
    write_bigwig(track, {name: own.size for name, own in values.items()}, pieces)
    return {
        "tracks": ("finetune", "tracks", "-r", world.reference, "--tracks", track, *TRACKS),
        "variants": ("finetune", "variants", "-r", world.reference, "-i", world.labelled, *VARIANTS),
        "sequences": ("finetune", "sequences", "-i", table, *SEQUENCES),
    }


@pytest.fixture(scope="module")
def whole(given: dict[str, Words], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    for kind, words in given.items():
        assert main([*map(str, words), "-o", str(folder / kind)]) == 0
    return {kind: folder / kind for kind in given}


def results(folder: Path) -> tuple[bytes, list[str]]:
    """Weights, and what was logged but for the seconds that it took."""
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [place for place, name in enumerate(lines[0]) if name != "train_seconds"]
    return (folder / "model.safetensors").read_bytes(), [",".join(line[k] for k in kept) for line in lines]


def on_call(function: Callable[..., Any], call: int, act: Callable[[], object]) -> Callable[..., Any]:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            act()
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "call", "number", "step"),
    [
        ("training_step", 2, signal.SIGTERM, 2),
        ("training_step", 8, signal.SIGINT, 8),
        ("validation_step", 2, signal.SIGTERM, None),  # within the validation after an epoch
        ("save", 2, signal.SIGINT, None),
    ],
)
def test_a_signal_leaves_a_checkpoint_to_go_on_from(
    kind: str,
    what: str,
    call: int,
    number: signal.Signals,
    step: int | None,
    given: dict[str, Words],
    whole: dict[str, Path],
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (*given[kind], "-o", tmp_path / "run")
    owner = checkpoint_io.torch if what == "save" else TASKS[kind]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(owner, what, on_call(getattr(owner, what), call, lambda: signal.raise_signal(number)))
        result = run_cli(*words)
    assert result.code == 128 + number, result.err
    assert signal.getsignal(number) is before
    last = result.err.splitlines()[-1]
    assert f"stopped by {number.name} after step {step or ''}" in last
    assert last.endswith("the same command with --resume goes on")
    result = run_cli(*words, "--resume", "-@", 2 if call == 8 else 0)
    assert result.code == 0, result.err
    assert f"resuming after step {step or ''}" in result.err
    assert results(tmp_path / "run") == results(whole[kind])


@pytest.mark.parametrize("kind", ["variants", "sequences"])
def test_a_run_that_is_killed_goes_on(
    kind: str, given: dict[str, Words], whole: dict[str, Path], run_cli: RunCli, tmp_path: Path
) -> None:
    words = (*given[kind], "-o", tmp_path / "run", "--checkpoint-every", 1)
    process = start(words, tmp_path / "log")
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("run/checkpoints/step-*[2-9].ckpt")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    result = run_cli(*words, "--resume")
    assert result.code == 0, result.err
    assert "resuming after step" in result.err
    assert results(tmp_path / "run") == results(whole[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [(), ("--patience", 1, "--optimizer.lr", "1e-6"), ("--max-minutes", 1e-6)])
def test_a_run_killed_at_its_very_end_is_the_same_run(
    kind: str, more: Words, given: dict[str, Words], run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its last checkpoint, before its model is written; then it is finished, by patience and by time too."""
    words = (*given[kind], *more)
    assert run_cli(*words, "-o", tmp_path / "whole").code == 0

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("genomamba.model.folder.save_model", killed)
        assert run_cli(*words, "-o", tmp_path / "run").code == 130
    monkeypatch.setattr(TASKS[kind], "training_step", killed)  # there is none to take
    result = run_cli(*words, "-o", tmp_path / "run", "--resume")
    assert result.code == 0, result.err
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert not (tmp_path / "run" / "checkpoints").exists()
    result = run_cli(*words, "-o", tmp_path / "run", "--resume")
    assert (result.code, result.err.splitlines()[-1]) == (0, f"{tmp_path / 'run'}: the run is finished")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_updates_of_low_rank_go_on(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = VARIANTS[: VARIANTS.index("--architecture.d_model")]

    def tuned(name: str, *more: object) -> CliResult:
        words = ("-r", world.reference, "-i", world.labelled, "-m", world.pretrained, "--method", "lora", *splits)
        return run_cli("finetune", "variants", *words, "-o", tmp_path / name, *more)

    assert tuned("whole").code == 0
    with monkeypatch.context() as patch:
        act = on_call(VariantTask.training_step, 5, lambda: signal.raise_signal(signal.SIGTERM))
        patch.setattr(VariantTask, "training_step", act)
        assert tuned("run").code == 128 + signal.SIGTERM
    assert tuned("run", "--resume").code == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["variants", "sequences"])
def test_what_cannot_go_on_is_refused(
    kind: str, given: dict[str, Words], run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = [*given[kind], "-o", run]
    with monkeypatch.context() as patch:
        act = on_call(TASKS[kind].training_step, 1, lambda: signal.raise_signal(signal.SIGTERM))
        patch.setattr(TASKS[kind], "training_step", act)
        assert run_cli(*words).code == 128 + signal.SIGTERM
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words.append("--resume")
    source = Path(str(words[words.index("-i") + 1]))
    kept = source.read_bytes()
    try:
        lines = kept.splitlines(keepends=True)
        source.write_bytes(b"".join(lines[:-45] + lines[-44:]))  # one less to train or validate on
        other = run_cli(*words)
    finally:
        source.write_bytes(kept)
    assert other.code == 2
    assert f".ckpt: {kind}=" in other.err
    assert "it was made with" in other.err
    for more, told in (
        (("--seed", 6), "seed=6: the run began with 5"),
        (("--force",), "resume: --resume keeps the run folder and --force removes it"),
        (("-m", "shipped", "--method", "probe"), "resume=True: it counts only with --method full, head or lora"),
    ):
        refused = run_cli(*words, *more)
        assert refused.code == 2
        assert told in refused.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
