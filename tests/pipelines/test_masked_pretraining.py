"""A masked model of both strands from the command line: it learns, repeats itself, and says what it cannot do."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_process import start
from world import RunCli

import genomamba
from genomamba.model.backbone import MaskedLM
from genomamba.tasks.pretrain import mask_numbers

WORDS = (
    "--objective masked --model.bidirectional true --model.rc_equivariant true --model.d_model 16 --model.n_layer 2 "
    "--model.d_state 4 --window 64 --batch-size 8 --steps 40 --validate-every 20 --optimizer.lr 0.02"
)


@pytest.fixture
def repeats(tmp_path: Path) -> Path:
    path = tmp_path / "r.fa"
    path.write_text(">a\n" + "AACCGTAGTC" * 120 + "NNNN\n>b\n" + "AACCGTAGTC" * 40 + "\n")
    return path


def test_it_learns_and_repeats_itself(run_cli: RunCli, repeats: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        result = run_cli("pretrain", "-r", repeats, "-o", tmp_path / name, "--valid", "b", *WORDS.split())
        assert result.code == 0, result.err
    model, again = (genomamba.load_model(tmp_path / name) for name in ("one", "two"))
    assert isinstance(model, MaskedLM)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with (tmp_path / "one" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    figures = [float(row["valid_bits_per_base"]) for row in rows if row.get("valid_bits_per_base")]
    assert figures[-1] < 1.6  # two bits are guessing; the word repeats every ten bases


def test_a_killed_run_goes_on_to_the_same_bits(repeats: Path, tmp_path: Path) -> None:
    words = ("pretrain", "-r", repeats, *WORDS.split(), "--steps", "12", "--checkpoint-every", "3")

    def finish(folder: str, *more: str) -> None:
        process = start((*words, "-o", tmp_path / folder, *more), tmp_path / f"{folder}.log")
        process.join(120)
        assert process.exitcode == 0, (tmp_path / f"{folder}.log").read_text()

    finish("whole")
    process = start((*words, "-o", tmp_path / "cut"), tmp_path / "cut.log")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cut/checkpoints/*.ckpt")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join(60)
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "it ended before it was killed"
    finish("cut", "--resume")
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_masks_depend_on_seed_split_and_sample_alone() -> None:
    first = mask_numbers(1, "train", 3, 50)
    assert np.array_equal(first, mask_numbers(1, "train", 3, 50))
    for other in ((0, "train", 3), (1, "valid", 3), (1, "train", 0)):
        assert not np.array_equal(first, mask_numbers(*other, 50))


def test_a_causal_objective_refuses_a_model_that_looks_ahead(run_cli: RunCli, repeats: Path, tmp_path: Path) -> None:
    result = run_cli("pretrain", "-r", repeats, "-o", tmp_path / "x", "--model.bidirectional", "true")
    assert result.code == 2
    assert result.err.startswith("model.bidirectional=True: a causal language model cannot look ahead; train a masked")
    assert not (tmp_path / "x").exists()


def test_regions_are_measured_by_what_a_refusal_names(run_cli: RunCli, repeats: Path, tmp_path: Path) -> None:
    run, bed = tmp_path / "run", tmp_path / "b.bed"
    bed.write_text("b\t0\t200\n")
    assert run_cli("pretrain", "-r", repeats, "-o", run, "--valid", "b", *WORDS.split(), "--steps", 1).code == 0
    given = ("-r", repeats, "-b", bed, "-m", run)
    result = run_cli("evaluate", "regions", *given)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"{run}: it is a masked language model, which looks both ways and has no likelihood of a region read from its "
        "start; measure its pseudo-likelihood by `genomamba likelihood`, with the same -r, -b and -m\n"
    )
    result = run_cli("likelihood", *given)
    assert result.code == 0, result.err
    assert "1 regions: " in result.err.splitlines()[-1]
    assert " bits per base over 200 bases" in result.err.splitlines()[-1]
    result = run_cli("generate", "-m", run)
    assert (result.code, result.err) == (
        2,
        f"{run}: it is no causal language model, so it draws nothing; "
        "give a run folder of `pretrain --objective causal`, or -m shipped\n",
    )
