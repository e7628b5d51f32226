"""Sequences drawn from a model, through the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from world import RunCli, World

from genomamba.genome import alphabet
from genomamba.model.folder import load_model


def records(text: str) -> list[tuple[str, str]]:
    found = [part.split("\n", 1) for part in text.split(">")[1:]]
    return [(header, body.replace("\n", "")) for header, body in found]


def test_seeds_prompts_and_shapes(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    words = ("generate", "-m", world.pretrained, "-n", 66, "-l", 64)
    result = run_cli(*words, "--seed", 3)
    assert result.code == 0, result.err
    drawn = records(result.out)
    assert [header for header, _ in drawn] == [f"sequence_{number} prompt=1 seed=3" for number in range(1, 67)]
    assert all(re.fullmatch("[ACGT]{65}", sequence) for _, sequence in drawn)
    assert len({sequence for _, sequence in drawn}) == 66
    assert {sequence[0] for _, sequence in drawn} == set("ACGT")
    assert max(len(line) for line in result.out.splitlines()) == 60
    assert run_cli(*words, "--seed", 3, "-o", tmp_path / "o.fa").code == 0
    assert (tmp_path / "o.fa").read_text() == result.out
    assert run_cli(*words, "--seed", 4).out != result.out
    prompted = records(run_cli(*words, "--prompt", "acgTTTTA").out)
    assert all(sequence.startswith("ACGTTTTA") and len(sequence) == 72 for _, sequence in prompted)
    indexed = run_cli("index", tmp_path / "o.fa")
    assert indexed.code == 0, indexed.err


def test_without_temperature_the_likeliest_base_is_taken(world: World, run_cli: RunCli) -> None:
    words = ("generate", "-m", world.pretrained, "-l", 12, "--prompt", "ACCT")
    greedy = run_cli(*words, "--temperature", 0)
    assert run_cli(*words, "--top-k", 1).out == greedy.out == run_cli(*words, "--top-p", 1e-9).out
    ((_, sequence),) = records(greedy.out)
    ids = torch.from_numpy(alphabet.encode(sequence)).long()
    with torch.no_grad():
        logits = load_model(world.pretrained)(ids[None])[0, 3:-1, alphabet.A : alphabet.T + 1]
    assert torch.equal(logits.argmax(-1) + alphabet.A, ids[4:])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--temperature", "-1"), "temperature=-1.0: it must be at least 0"),
        (("--top-p", "0"), "top_p=0.0: it must lie in (0, 1]"),
        (("--top-p", "1.5"), "top_p=1.5: it must lie in (0, 1]"),
        (("--top-k", "0"), "top_k=0: it must be at least 1"),
        (("--prompt", ""), "prompt=: it must be bases; write A, C, G and T"),
        (("--prompt", "ACGN"), "prompt=ACGN: it must be bases"),
        (("-n", "0"), "count=0: it must be at least 1"),
        (("--length", "0"), "length=0: it must be at least 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(world: World, run_cli: RunCli, words: tuple[str, ...], line: str) -> None:
    result = run_cli("generate", "-m", world.pretrained, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_a_classifier_draws_nothing_and_an_output_is_not_replaced(
    world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli("generate", "-m", world.classifier)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{world.classifier}: it is no causal language model, so it draws nothing; ")
    (tmp_path / "o.fa").write_text("mine")
    result = run_cli("generate", "-m", world.pretrained, "-o", tmp_path / "o.fa")
    assert (result.code, (tmp_path / "o.fa").read_text()) == (2, "mine")


def test_a_closed_pipe_ends_quietly(world: World) -> None:
    words = f"generate -m {world.pretrained} -n 192 -l 200 --device cpu"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m genomamba {words} | head -n 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (141, ">sequence_1 prompt=1 seed=0\n")
    assert re.fullmatch(r"(drawing [^\n]*\n)*", done.stderr)  # progress, where it is slow
