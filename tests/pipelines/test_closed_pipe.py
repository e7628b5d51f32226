"""A reader of stdout that has gone ends every command alike: with the exit code of SIGPIPE, and quietly.

A full disk behind it is a message.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from world import World

from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.model.sequence_heads import TokenModel
from genomamba.pipelines.cli import main
from genomamba.scoring import metrics

# {bed}, {evaluation} and {fasta} are files; each command's progress on stderr ends before it prints.
COMMANDS = {
    "evaluate variants": "-r {reference} -i {labelled} -m {classifier} --device cpu",
    "evaluate sequences": "-i {sequences}/table.csv -m {sequences}/model --leaks drop --device cpu",
    "evaluate regions": "-r {reference} -b {bed} -m {pretrained} --device cpu",
    "score": "-r {reference} -i {labelled} -m {pretrained} --window 16 --device cpu -o -",
    "predict": "-r {fasta} -m {sequences}/model --device cpu",
    "likelihood": "-r {reference} -m {pretrained} --region chrA:1-9 --device cpu",
    "attribute": "-r {reference} -m {pretrained} --region chrA:1-4 --window 16 --device cpu",
    "generate": "-m {pretrained} -l 4 --device cpu",
    "plan": "--on cpu --model.d_model 16 --model.n_layer 1 --window 64 --batch-size 2",
    "index": "{reference}",
    "report": "-m {classifier} -e {evaluation} -o -",
    "info": "",
    "score --help": "",
}
# Of these a progress bar is the first that is said; stderr is closed too.
WITH_BARS = {
    "score": "score -r {reference} -i {labelled} -m {pretrained} --window 16 --device cpu -o {out}/scored.vcf",
    "predict": "predict -r {fasta} -m {sequences}/model --device cpu -o {out}/answers.tsv",
    "predict to Parquet": "predict -r {fasta} -m {sequences}/model --device cpu -o {out}/typed.parquet",
    "predict tracks": "predict -r {reference} -m {tracks} --region chrA:1-9 --device cpu -o {out}/tracks.bw",
    "embed": "embed -r {reference} -m {pretrained} --region chrA:1-9 --device cpu -o {out}/pooled.parquet",
    "embed bases": "embed -r {reference} -m {pretrained} --region chrA:1-9 --pool none --device cpu -o {out}/bases.npz",
    "likelihood": "likelihood -r {reference} -m {pretrained} --region chrA:1-9 --device cpu -o {out}/bits.bw",
    "finetune variants": "finetune variants -r {reference} -i {labelled} -m {pretrained} --train AAA1 --valid CCC3"
    " --window 16 --epochs 1 --device cpu -o {out}/classifier",
    "pretrain": "pretrain -r {reference} --valid chrB:1-40 --model.d_model 8 --model.n_layer 1 --window 32"
    " --batch-size 2 --steps 2 --device cpu -o {out}/run",
}
# Forks share what takes seconds to import. What nobody would see is noted all the same.
PROGRAM = """
import json, os, sys, tempfile, threading, traceback
import torch
import genomamba.scoring.evaluation, genomamba.scoring.sequence_metrics, genomamba.tasks.pretrain
from genomamba.pipelines.cli import main
from genomamba.scoring import metrics
metrics.BOOTSTRAPS = 10
for closed, words in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    os.close(reader)
    said = tempfile.TemporaryFile()
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)
        os.dup2(said.fileno(), 2)
        notes = os.fdopen(os.dup(said.fileno()), "w", buffering=1)
        threading.excepthook = lambda told: traceback.print_exception(told.exc_value, file=notes)
        sys.unraisablehook = lambda told: traceback.print_exception(told.exc_value, file=notes)
        for number in closed:
            os.dup2(writer, number)
        code = 1
        try:
            code = main(words)
            sys.stdout.flush()  # as the interpreter's end does, which takes seconds here
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc(file=notes)
        os._exit(code)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0)
    print(json.dumps([code, said.read().decode()]), flush=True)
"""


class Ending(NamedTuple):
    """Of a process."""

    code: int
    err: str


@pytest.fixture(scope="module")
def places(world: World, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pipes")
    found = {"bed": folder / "r.bed", "fasta": folder / "s.fa", "evaluation": folder / "e.json", "out": folder / "out"}
    found["out"].mkdir()
    save_model(TokenModel(ModelConfig(d_model=8, n_layer=1), ["a", "b"]), folder / "t", card="", provenance={})
    found["bed"].write_text("chrA\t0\t40\n")
    found["fasta"].write_text(">a\nACGT\n")
    words = f"evaluate variants -r {world.reference} -i {world.labelled} -m {world.classifier} -o {found['evaluation']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BOOTSTRAPS", 10)
        assert main([*words.split(), "--device", "cpu"]) == 0
    return found | world._asdict() | {"sequences": trained, "tracks": folder / "t"}


@pytest.fixture(scope="module")
def endings(places: dict[str, Path]) -> dict[tuple[str, tuple[int, ...]], Ending]:
    """By command, and by which file descriptors' reader has gone."""
    wanted = {(name, (1,)): f"{name} {words}" for name, words in COMMANDS.items()}
    wanted |= {(name, (1, 2)): words for name, words in WITH_BARS.items()}
    lines = [(closed, words.format(**places).split()) for (_, closed), words in wanted.items()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)], env=environment, capture_output=True, text=True, check=True
    )
    return {each: Ending(*json.loads(line)) for each, line in zip(wanted, done.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_ends_it_quietly(
    endings: dict[tuple[str, tuple[int, ...]], Ending], command: str
) -> None:
    code, err = endings[command, (1,)]
    assert code == 141, err
    assert "Error" not in err
    assert "Exception" not in err


@pytest.mark.parametrize("command", WITH_BARS)
def test_a_reader_of_progress_that_has_gone_ends_it_quietly(
    endings: dict[tuple[str, tuple[int, ...]], Ending], places: dict[str, Path], command: str
) -> None:
    assert endings[command, (1, 2)] == (141, "")
    output = Path(WITH_BARS[command].format(**places).split()[-1])
    left = {path.name for path in places["out"].glob(f"{output.stem}*")}
    assert f"{output.name}.shards" not in left or len(left) == 1  # never a whole output beside them


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_told_in_a_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "genomamba", "info"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "no space is left where the output goes; free some, or send it elsewhere\n"


def closed(*numbers: int) -> list[str]:
    """The command, begun without these file descriptors."""
    close = f"import os, sys; [os.close(number) for number in {numbers}]; os.execv(sys.executable, sys.argv[1:])"
    return [sys.executable, "-c", close, sys.executable, "-m", "genomamba"]


def test_stdout_may_be_closed_from_the_beginning() -> None:
    done = subprocess.run([*closed(1), "info"], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_stderr_may_be_closed_from_the_beginning_and_the_reader_of_stdout_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        assert subprocess.run([*closed(2), "--version"], stdout=gone).returncode == 141
    assert subprocess.run([*closed(1, 2), "--version"]).returncode == 0


def test_what_a_closed_stderr_would_be_told_does_not_go_to_stdout(tmp_path: Path) -> None:
    words = ("index", tmp_path / "none.fa")
    done = subprocess.run([*closed(2), *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (2, "")
