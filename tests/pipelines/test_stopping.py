"""What stops a run leaves: a checkpoint, an exit code, one line that says where; and what a damaged one gets."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_process import start
from world import CliResult, RunCli, write_reference

from genomamba.tasks import checkpoint_io
from genomamba.tasks.pretrain import PretrainTask

SMALL = (
    "--model.d_model 8 --model.n_layer 1 --model.d_state 2 --model.dropout 0.1 --window 32 --batch-size 2"
    " --steps 7 --validate-every 3 --valid chrB:1-200 --device cpu --step-log"
).split()
Pretrain = Callable[..., CliResult]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> Path:
    return write_reference(tmp_path_factory.mktemp("stopping") / "genome.fa", genome)


@pytest.fixture
def pretrain(run_cli: RunCli, reference: Path) -> Pretrain:
    return lambda folder, *more: run_cli("pretrain", "-r", reference, "-o", folder, *SMALL, *more)


@pytest.fixture(scope="module")
def finished(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from genomamba.pipelines.cli import main

    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["pretrain", "-r", str(reference), "-o", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run: checkpoints of steps 6 and 7, and of the best."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def last(run: Path) -> Path:
    return run / "checkpoints" / "step-000000007.ckpt"


def results(folder: Path) -> tuple[bytes, str]:
    return (folder / "model.safetensors").read_bytes(), (folder / "steps.tsv").read_text()


def once(function: Callable[..., Any], number: signal.Signals, call: int) -> Callable[..., Any]:
    """``function``, but its ``call``-th call raises the signal first."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2)])
@pytest.mark.parametrize(
    ("owner", "name", "call", "step"),
    [
        (PretrainTask, "training_step", 2, 2),
        (PretrainTask, "training_step", 7, 7),
        (PretrainTask, "validation_step", 2, 3),
        (PretrainTask, "validation_step", 10, 7),  # the last one, which runs by itself
        (checkpoint_io.torch, "save", 1, 3),
    ],
)
def test_signals_leave_a_checkpoint_and_their_exit_code(
    number: signal.Signals,
    workers: int,
    owner: Any,
    name: str,
    call: int,
    step: int,
    pretrain: Pretrain,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, once(getattr(owner, name), number, call))
        result = pretrain(tmp_path / "run", "-@", workers)
    assert signal.getsignal(number) is before
    # They ignore the signal by which Python ends its children, and it would wait for them when it exits.
    assert not multiprocessing.active_children()
    assert result.code == 128 + number
    assert f"stopped by {number.name} after step {step};" in result.err.splitlines()[-1]
    assert not (tmp_path / "run" / "model.safetensors").exists()
    result = pretrain(tmp_path / "run", "--resume", "-@", workers // 2)
    assert result.code == 0, result.err
    assert f"resuming after step {step}\n" in result.err
    assert results(tmp_path / "run") == results(finished)


def test_a_second_ctrl_c_does_not_wait(
    pretrain: Pretrain, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PretrainTask.training_step

    def impatient(*args: Any, **kwargs: Any) -> Any:
        if args[0].global_step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", impatient)
        result = pretrain(tmp_path / "run")
    assert result.code == 130
    assert "interrupted twice" in result.err.splitlines()[-1]
    result = pretrain(tmp_path / "run", "--resume")
    assert "resuming after step 3\n" in result.err
    assert results(tmp_path / "run") == results(finished)


def test_a_finished_run_resumed_is_the_same_run(run: Path, pretrain: Pretrain, finished: Path) -> None:
    result = pretrain(run, "--resume")
    assert result.code == 0, result.err
    assert results(run) == results(finished)
    assert "bits per base on the validation regions, after 7 steps" in result.err


def test_the_latest_and_the_best_are_kept(run: Path) -> None:
    saved = [torch.load(path, weights_only=True) for path in sorted((run / "checkpoints").iterdir())]
    steps = [checkpoint["genomamba_progress"]["step"] for checkpoint in saved]
    best = saved[-1]["genomamba_progress"]["best"]
    assert steps == sorted({6, 7, best[1]})
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("valid_bits_per_base")
    assert best[0] == min(float(row[column]) for row in rows[1:] if row[column])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit in the middle of the largest record."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    at = data.index(largest.filename.encode()) + len(largest.filename) + 200 + largest.file_size // 2
    data[at] ^= 16
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: Callable[[Path], None], run: Path, pretrain: Pretrain, finished: Path
) -> None:
    damage(last(run))
    result = pretrain(run, "--resume")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert lines[0].startswith(f"{last(run)}: it")
    assert "damaged" in lines[0]
    assert lines[1] == f"{run}/checkpoints/step-000000006.ckpt: resuming after step 6"
    assert results(run) == results(finished)


def test_nothing_is_resumed_when_all_are_damaged(run: Path, pretrain: Pretrain) -> None:
    for path in (run / "checkpoints").iterdir():
        cut(path)
    result = pretrain(run, "--resume")
    assert result.code == 2
    assert result.err.startswith(f"{last(run)}: it is cut or damaged")
    assert len(result.err.splitlines()) == 1


class Trap:
    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_in_a_checkpoint_is_refused_and_not_executed(
    plain: bool, run: Path, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    checkpoint = torch.load(last(run), weights_only=True)
    for path in (run / "checkpoints").iterdir():
        if plain:
            path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        else:
            torch.save({**checkpoint, "extra": Trap(tmp_path / "sprung")}, path)
    result = pretrain(run, "--resume")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert ("it is cut or damaged" if plain else "which are never executed") in result.err
    assert not (tmp_path / "sprung").exists()


def test_an_instantiator_is_refused(run: Path, pretrain: Pretrain) -> None:
    for path in (run / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        torch.save({**checkpoint, "hyper_parameters": {"_instantiator": "os.system"}}, path)
    result = pretrain(run, "--resume")
    assert result.code == 2
    assert "it holds hyper_parameters" in result.err


def test_a_checkpoint_of_another_shape_is_refused_with_keys_and_shapes(run: Path, pretrain: Pretrain) -> None:
    checkpoint = torch.load(last(run), weights_only=True)
    weights = checkpoint["state_dict"]
    weights["model.backbone.norm_f.weight"] = torch.zeros(9)
    weights["model.extra"] = weights.pop("model.backbone.layers.0.mixer.D")
    torch.save(checkpoint, last(run))
    result = pretrain(run, "--resume")
    assert result.code == 2
    assert result.err.startswith(f"{last(run)}: weights and configuration disagree: ")
    for part in (
        "model.backbone.norm_f.weight is (9,), the configuration asks for (8,)",
        "model.extra is (16,), the configuration asks for none",
        "model.backbone.layers.0.mixer.D is missing, the configuration asks for (16,)",
    ):
        assert part in result.err


def test_an_option_younger_than_the_run_had_its_default(run: Path, pretrain: Pretrain) -> None:
    began = yaml.safe_load((run / "run.yaml").read_text())
    del began["model"]["drop_path"], began["jitter"]
    (run / "run.yaml").write_text(yaml.safe_dump(began))
    assert pretrain(run, "--resume").code == 0
    result = pretrain(run, "--resume", "--model.drop_path", "0.1")
    assert result.err.startswith(f"{run}/run.yaml: model.drop_path=0.1: the run began with 0.0; ")


def test_a_run_goes_on_only_as_it_began(run: Path, pretrain: Pretrain, run_cli: RunCli, tmp_path: Path) -> None:
    result = pretrain(run, "--resume", "--optimizer.lr", "0.1")
    assert result.code == 2
    assert result.err.startswith(f"{run}/run.yaml: optimizer.lr=0.1: the run began with 0.004; ")
    other = write_reference(tmp_path / "other.fa", {"chrA": "ACGT" * 100, "chrB": "TTGCA" * 100})
    result = run_cli("pretrain", "-c", run / "run.yaml", "-r", other, "-o", run, "--resume")
    assert result.code == 2
    assert result.err.startswith(f"{last(run)}: reference=")
    assert "it was made with" in result.err
    result = pretrain(run, "--resume", "--force")
    assert result.code == 2
    assert "give one of them" in result.err


def test_resuming_what_was_never_begun_begins(pretrain: Pretrain, finished: Path, tmp_path: Path) -> None:
    result = pretrain(tmp_path / "new", "--resume")
    assert result.code == 0
    assert "there is no checkpoint to resume from; starting at step 0" in result.err
    assert results(tmp_path / "new") == results(finished)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_windows(
    pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer_steps = 0
    step = torch.optim.AdamW.step

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal optimizer_steps
        result = step(*args, **kwargs)  # it calls the closure first, in which the loss is looked at
        optimizer_steps += 1
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    result = pretrain(tmp_path / "run", "--optimizer.lr", "1e30", "--checkpoint-every", "1")
    assert result.code == 1
    steps = (tmp_path / "run" / "steps.tsv").read_text().splitlines()
    assert optimizer_steps == len(steps) > 0
    message = result.err.splitlines()[-1]
    assert f"at step {len(steps)}, in windows chr" in message
    assert "Traceback" not in result.err
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_size_limit_names_the_path_and_leaves_the_old_checkpoint(
    workers: int, run: Path, reference: Path, tmp_path: Path
) -> None:
    good = run / "checkpoints" / "step-000000006.ckpt"
    last(run).unlink()
    before = good.read_bytes()
    words = ("pretrain", "-r", reference, "-o", run, *SMALL, "--resume", "-@", workers)
    process = start(words, tmp_path / "log", file_size_limit=len(before) // 2)
    process.join(120)
    error = (tmp_path / "log").read_text().splitlines()[-1]
    assert process.exitcode == 2, error
    assert error.startswith(f"{run}/checkpoints/step-000000007.ckpt: it could not be written (File too large)")
    assert good.read_bytes() == before
    assert not list((run / "checkpoints").glob(".*"))
