"""`pretrain --write best`: the folder's weights are those of the step at which validation was lowest."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from world import RunCli, Words, write_reference

from genomamba.tasks.pretrain import PretrainTask

# The rate grows from step to step, until nothing can be learnt; so validation is lowest at first.
RISING = (
    "--model.d_model 8 --model.n_layer 2 --model.d_state 2 --window 64 --batch-size 4 --steps 9 --validate-every 3"
    " --device cpu --optimizer.lr 3 --optimizer.warmup 1 --keep 1"
).split()
TOLD = "the model is that after 3 steps, where validation was at its lowest\n"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(4)
    contigs = {name: "".join(random.choice(list("ACGT"), size)) for name, size in (("a", 2000), ("b", 300))}
    return write_reference(tmp_path_factory.mktemp("best") / "genome.fa", contigs)


@pytest.fixture(scope="module")
def words(reference: Path) -> Words:
    return ("pretrain", "-r", reference, *RISING, "--valid", "b", "-o")


def validations(run: Path) -> dict[int, float]:
    rows = (line.split("\t") for line in (run / "validation.tsv").read_text().splitlines())
    return {int(row[0]): float(row[4]) for row in rows if row[1:3] == ["*", "all"]}


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.fixture
def best(run_cli: RunCli, words: Words, tmp_path: Path) -> Path:
    result = run_cli(*words, tmp_path / "best", "--write", "best")
    assert result.code == 0, result.err
    assert "bits per base on the validation regions, after 3 of 9 steps on " in result.err
    assert TOLD in result.err
    return tmp_path / "best"


def test_it_is_the_model_that_validated_best(
    run_cli: RunCli, reference: Path, words: Words, best: Path, tmp_path: Path
) -> None:
    figures = validations(best)
    assert min(figures, key=lambda step: figures[step]) == 3
    (tmp_path / "valid.bed").write_text("b\t0\t300\n")
    measured = run_cli("evaluate", "regions", "-r", reference, "-b", tmp_path / "valid.bed", "-m", best)
    assert float(measured.out.splitlines()[1].split("\t")[5]) == pytest.approx(figures[3], abs=1e-4)
    made = json.loads((best / "provenance.json").read_text())
    assert (made["steps"], made["weights_of_step"]) == (9, 3)
    assert made["valid_bits_per_base"] == pytest.approx(figures[3], abs=1e-5)
    assert "The weights are those after 3 steps" in (best / "README.md").read_text()
    assert run_cli(*words, tmp_path / "last").code == 0
    assert weights(tmp_path / "last") != weights(best)
    assert "The weights are those" not in (tmp_path / "last" / "README.md").read_text()


def test_a_finished_run_is_given_it_and_gives_it_back(
    run_cli: RunCli, words: Words, best: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = run_cli(*words, run)
    assert result.code == 0, result.err
    assert TOLD not in result.err
    assert "(--resume --write best puts that one in its place)" in result.err
    last = weights(run)
    result = run_cli(*words, run, "--resume", "--write", "best")
    assert result.code == 0, result.err
    assert TOLD in result.err
    assert weights(run) == weights(best)
    assert run_cli(*words, run, "--resume").code == 0
    assert weights(run) == last


def test_a_stopped_run_goes_on_to_it(
    run_cli: RunCli, words: Words, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PretrainTask.training_step

    def stopped(task: PretrainTask, *args: object) -> object:
        if task.global_step == 5:
            signal.raise_signal(signal.SIGTERM)
        return step(task, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "training_step", stopped)
        assert run_cli(*words, tmp_path / "run").code == 128 + signal.SIGTERM
    result = run_cli(*words, tmp_path / "run", "--resume", "--write", "best")
    assert result.code == 0, result.err
    assert weights(tmp_path / "run") == weights(best)


def test_a_best_checkpoint_that_is_lost_is_named_and_the_model_stays(run_cli: RunCli, words: Words, best: Path) -> None:
    lost, before = best / "checkpoints" / "step-000000003.ckpt", weights(best)
    lost.unlink()
    result = run_cli(*words, best, "--resume", "--write", "best")
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith(f"{lost}: it is cut or damaged ([Errno 2] No such file")
    assert line.endswith("; put it back and go on with --resume, or leave out --write best")
    assert weights(best) == before


def test_without_validation_none_is_the_best(run_cli: RunCli, reference: Path, tmp_path: Path) -> None:
    result = run_cli("pretrain", "-r", reference, *RISING, "-o", tmp_path / "run", "--write", "best")
    assert (result.code, result.err) == (
        2,
        "write=best: no step is the best where nothing is held out for validation; "
        "hold out regions by --valid, --valid-bed or --valid-blocks, or leave this out\n",
    )
    assert not (tmp_path / "run").exists()
