"""What can go wrong around a training run: the disk, the memory, the device, the data."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from world import RunCli, World, write_reference

from genomamba.errors import ConfigError
from genomamba.tasks import checkpoint_io
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.trainer import check_precision

SMALL = (
    "--model.d_model 8 --model.n_layer 1 --model.d_state 2 --window 32 --batch-size 4 --steps 6 --validate-every 3"
    " --valid chrB:1-200 --device cpu --step-log"
).split()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> Path:
    return write_reference(tmp_path_factory.mktemp("bad") / "genome.fa", genome)


def test_a_full_disk_names_the_file_and_leaves_the_old_checkpoint(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # 59
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL)
    write, saves = checkpoint_io._Watched.write, 0
    save = torch.save

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal saves
        saves += 1
        save(*args, **kwargs)

    def full(self: Any, data: Any) -> int:
        if saves > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io.torch, "save", counted)
        patch.setattr(checkpoint_io._Watched, "write", full)
        result = run_cli(*given)
    assert result.code == 2
    last = tmp_path / "run" / "checkpoints" / "step-000000006.ckpt"
    assert result.err.splitlines()[-1].startswith(f"{last}: it could not be written (No space left on device)")
    assert [path.name for path in last.parent.iterdir()] == ["step-000000003.ckpt"]
    result = run_cli(*given, "--resume")
    assert result.code == 0, result.err
    assert "resuming after step 3\n" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:  # 59
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    result = run_cli("pretrain", "-r", reference, "-o", closed / "run", *SMALL)
    assert result.code == 2
    assert "Permission denied" in result.err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "allocator", "numpy"],
)
def test_memory_that_runs_out_says_what_would_fit(
    error: Exception, run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # 61
    def greedy(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(PretrainTask, "training_step", greedy)
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL)
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith("batch_size=4: memory ran out on cpu with 4 windows of 32 bases at once in 32-true; pass --")
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()  # there is nothing to go on from


def test_other_failures_keep_their_trace(
    run_cli: RunCli, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(PretrainTask, "training_step", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL)


def test_bf16_is_never_emulated_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:  # 62
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(ConfigError, match="precision=bf16-mixed: this GPU has no bf16; use 32-true"):
        check_precision("bf16-mixed", "cuda")
    check_precision("32-true", "cuda")
    check_precision("bf16-mixed", "cpu")


def test_windows_without_a_base_to_predict_teach_nothing_and_break_nothing(
    run_cli: RunCli, tmp_path: Path
) -> None:  # 65
    """Runs of N that are too short to part a region, but as long as a window; and a validation region of N alone."""
    path = write_reference(tmp_path / "n.fa", {"a": ("ACGTTGCA" * 5 + "N" * 40) * 20, "b": "N" * 300})
    words = [word if word != "chrB:1-200" else "b:1-300" for word in SMALL]
    result = run_cli("pretrain", "-r", path, "-o", tmp_path / "run", *words, "--window", 16, "--batch-size", 1)
    assert result.code == 0, result.err
    assert "no validation regions" in result.err
    losses = [float.fromhex(line.split("\t")[1]) for line in (tmp_path / "run" / "steps.tsv").read_text().splitlines()]
    assert all(math.isfinite(loss) for loss in losses)
    fewer = ("--max-n-frac", 0.2, "--steps", 12)
    result = run_cli("pretrain", "-r", path, "-o", tmp_path / "few", *words, "--window", 16, "--batch-size", 4, *fewer)
    assert result.code == 0, result.err
    assert "windows with too many N's were passed over" in result.err


def test_masking_is_of_masked_models(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    given = ("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, "--masking.share", 0.2)
    result = run_cli(*given)
    assert (result.code, result.err) == (
        2,
        "masking.share=0.2: it counts only with --objective masked; give that too, or leave this out\n",
    )
    assert not (tmp_path / "run").exists()
    result = run_cli(*given, "--objective", "masked")
    assert result.code == 0, result.err


def test_a_base_is_held_out_once(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:  # 54
    result = run_cli("pretrain", "-r", reference, "-o", tmp_path / "run", *SMALL, "--test", "chrB:150-400")
    assert result.code == 2
    assert result.err.startswith("test=chrB:150-400: it overlaps the validation region chrB:1-200")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_without_room_for_the_alphabet_is_refused(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    result = run_cli("pretrain", "-r", world.reference, "-o", tmp_path / "run", "--model.vocab_size", 3)
    assert (result.code, result.err) == (2, "model.vocab_size=3: the alphabet has 12 ids; change it\n")
    assert not (tmp_path / "run").exists()
