"""A path that is missing, or taken, is told at once: before torch, which takes seconds, is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from world import HEAVY, RunCli

from genomamba.errors import CheckpointError
from genomamba.interop.hub import check_source
from genomamba.pipelines.cli import COMMANDS

MISSING = "no such file; check the path and its permissions"
NO_MODEL = "it is missing; give -m a folder that `genomamba pretrain` or `finetune` wrote"
NO_CHECKPOINT = "it is missing; give a checkpoint's folder or file"
NEAREST = "the nearest name of a model is shipped"
EXISTS = "the output exists; choose another -o, or pass --force to replace it"
A_FILE = "it is a file, and a folder is to be made there; choose another -o"
A_FOLDER = "it is a folder, and a file is to be written there; choose another -o"
NOT_EMPTY = "the folder exists and is not empty; choose another -o, or pass --force to replace it"
UNKNOWN = "the extension names no format; use"
NO_STDOUT = "it is not written to stdout; give a path"
NO_HEAD = "it is a causal language model, which has no classification head"
SEQUENCES = "a model of whole sequences of it by `genomamba finetune sequences"
VARIANTS = "a variant classifier of it by `genomamba finetune variants"
# {sequences} is what config.json and an empty file of weights make a model of whole sequences. {tsv}, {json}: files.
# {no} is in no folder; {fa} and {bed} are files, {out} is one too, {run} a folder with something in it, {new} nothing.
CASES = [
    ("index {no}", f"{{no}}: {MISSING}"),
    ("pretrain -r {fa} {no} -o {new}", f"{{no}}: {MISSING}"),
    ("pretrain -r {fa} --valid-bed {no} -o {new}", f"{{no}}: {MISSING}"),
    ("pretrain -r {fa} --init {no} -o {new}", f"{{no}}: {NO_CHECKPOINT}"),
    ("pretrain -r {fa} -o {run}", f"{{run}}: {NOT_EMPTY}"),
    ("pretrain -r {no} -o {run} --resume", f"{{no}}: {MISSING}"),
    ("plan --init {no}", f"{{no}}: {NO_CHECKPOINT}"),
    ("plan -o {out}", f"{{out}}: {EXISTS}"),
    ("demo -o {run}", f"{{run}}: {NOT_EMPTY}"),
    ("finetune variants -r {fa} -i {bed} -m {no} -o {new}", f"{{no}}/config.json: {NO_MODEL}"),
    ("finetune variants -r {fa} -i {no} -m shipped -o {new}", f"{{no}}: {MISSING}"),
    ("finetune variants -r {fa} -i {bed} -o {folder}", "{folder}: the input {fa} lies in it; choose another -o"),
    ("finetune sequences -i {no} -o {new}", f"{{no}}: {MISSING}"),
    ("finetune sequences -i {bed} --labels {no} -o {new}", f"{{no}}: {MISSING}"),
    ("finetune tracks -r {fa} --tracks {no} --valid c -o {new}", f"{{no}}: {MISSING}"),
    ("finetune tracks -r {fa} --tracks x={no} --valid c -o {new}", f"{{no}}: {MISSING}"),
    ("finetune tracks -r {fa} --tracks {bed} --valid c -o {run}", f"{{run}}: {NOT_EMPTY}"),
    ("predict -r {no} -m shipped", f"{{no}}: {MISSING}"),
    ("predict -r {fa} -m {run}", f"{{run}}/config.json: {NO_MODEL}"),
    ("predict -r {fa} -m shipped", f"shipped: {NO_HEAD}; make {SEQUENCES} -m shipped`"),
    ("predict -r {fa} -m {sequences} -o {tsv}", f"{{tsv}}: {EXISTS}"),
    ("score -r {fa} -i {no} -o {new}", f"{{no}}: {MISSING}"),
    ("score -r {fa} -i - -m {no} -o -", f"{{no}}/config.json: {NO_MODEL}"),
    ("score -r {fa} -i {bed} -o {out}", f"{{out}}: {EXISTS}"),
    ("score -r {fa} -i {bed} -o - --summary {json}", f"{{json}}: {EXISTS}"),
    ("score -r {fa} -i {bed} -o {new} --summary {new}", "{new}: summary: output is the same file; give another name"),
    ("score -r {fa} -i {bed} -o {bed} --force", "{bed}: output: input is the same file; give another name"),
    (
        "attribute -r {fa} --region c:1-9 -o {new} --logo {new} --force",
        "{new}: logo: output is the same file; give another name",
    ),
    ("evaluate variants -r {fa} -i {bed} -m {no}", f"{{no}}/config.json: {NO_MODEL}"),
    ("evaluate variants -r {fa} -i {bed} -m shipped", f"shipped: {NO_HEAD}; make {VARIANTS} -m shipped`"),
    ("evaluate variants -r {fa} -i {bed} -m {sequences}", "{sequences}: it is a model of whole sequences, not a vari"),
    ("evaluate sequences -i {bed} -m shipped --predictions {out}", f"{{out}}: {EXISTS}"),
    ("evaluate sequences -i {bed} -m shipped", f"shipped: {NO_HEAD}; make {SEQUENCES} -m shipped`"),
    ("evaluate tracks -r {fa} --tracks {no} -m shipped", "shipped: it is a causal language model, which has no head f"),
    ("evaluate tracks -r {fa} --tracks x={no} -m {tracks}", f"{{no}}: {MISSING}"),
    ("evaluate tracks -r {fa} --tracks {bed} -m {tracks} -o {out}", f"{{out}}: {EXISTS}"),
    ("evaluate tracks -r {fa} --tracks y={bed} -m {tracks}", "tracks=y: the model has no track of that name"),
    ("evaluate regions -r {fa} -b {no}", f"{{no}}: {MISSING}"),
    (
        "evaluate regions -r {fa} -b {bed} -m {sequences}",
        "{sequences}: it is a model of whole sequences, which predicts",
    ),
    ("likelihood -r {no}", f"{{no}}: {MISSING}"),
    ("likelihood -r {fa} -o {no}/x.bw", "{no}/x.bw: there is no such folder to write it to; make the folder, or"),
    ("attribute -r {fa} --region x -m {no}", f"{{no}}: {NO_CHECKPOINT}"),
    ("attribute -r {fa} --region x --heatmap {out}", f"{{out}}: {EXISTS}"),
    ("embed -r {fa} -b {no} -o {new}", f"{{no}}: {MISSING}"),
    ("generate -o {out}", f"{{out}}: {EXISTS}"),
    ("attribute -r {fa} --region x -o {run} --force", f"{{run}}: {A_FOLDER}"),
    ("score -r {fa} -i {bed} -o {folder}/d.tsv --force", f"{{folder}}/d.tsv: {A_FOLDER}"),
    ("predict -r {fa} -m {sequences} -o {folder}/d.tsv", f"{{folder}}/d.tsv: {A_FOLDER}"),
    ("export -m shipped --to caduceus -o {run}", f"{{run}}: {EXISTS}"),
    ("export -m shipped --to caduceus -o {out} --force", f"{{out}}: {A_FILE}"),
    ("import {run} -o {out} --force", f"{{out}}: {A_FILE}"),
    ("finetune sequences -i {fa} -o {run}", f"{{run}}: {NOT_EMPTY}"),
    ("import {no} -o {new}", f"{{no}}: {NO_CHECKPOINT}"),
    ("import {run} -o {new} --original-config {no}", f"{{no}}: {MISSING}"),
    ("export -m {no} --to caduceus -o {new}", f"{{no}}: {NO_CHECKPOINT}"),
    ("report -m shipped -e {no} -o {new}", f"{{no}}: {MISSING}"),
    ("report -m shipped -e {bed} -o {new}.html", f"shipped: {NO_HEAD}; make {VARIANTS} -m shipped`"),
    ("score -r {fa} -i {bed} -o {new} -m shiped", f"shiped: there is no such folder; {NEAREST}"),
    ("predict -r {fa} -m shippped", f"shippped: there is no such folder; {NEAREST}"),
    ("embed -r {fa} -b {bed} -o {new} -m Shipped", f"Shipped: there is no such folder or file; {NEAREST}"),
    (
        "pretrain -r {fa} -o {new} --init genomamba-small-v1",
        f"genomamba-small-v1: there is no such folder or file; {NEAREST}",
    ),
    ("score -r {fa} -i {bed} -o {new} -m zipped", f"zipped/config.json: {NO_MODEL}"),
    (
        "score -r {fa} -i {bed} -o {new}.txt",
        f"{{new}}.txt: output: {UNKNOWN} one of .vcf, .vcf.gz, .bcf",
    ),
    ("score -r {fa} -i {bed} -o - --summary {new}.tsv", f"{{new}}.tsv: summary: {UNKNOWN} .json"),
    ("attribute -r {fa} --region x -o {new}.parquet", f"{{new}}.parquet: output: {UNKNOWN} one of .tsv, .tsv.gz"),
    ("evaluate regions -r {fa} -b {bed} -o {new}.parquet", f"{{new}}.parquet: output: {UNKNOWN} one of .tsv, .tsv.gz"),
    ("evaluate regions -r {fa} -b {bed} -o {new}", f"{{new}}: output: {UNKNOWN} one of .tsv, .tsv.gz"),
    ("evaluate variants -r {fa} -i {bed} -m {sequences} -o {new}.tsv", f"{{new}}.tsv: output: {UNKNOWN} .json"),
    ("evaluate sequences -i {bed} -m {sequences} -o {new}.csv", f"{{new}}.csv: output: {UNKNOWN} .json"),
    (
        "evaluate sequences -i {bed} -m {sequences} --predictions {new}.parquet",
        f"{{new}}.parquet: predictions: {UNKNOWN} one of .tsv, .tsv.gz",
    ),
    ("generate -o {new}.parquet", f"{{new}}.parquet: output: {UNKNOWN} one of .fa, .fa.gz, .fasta"),
    ("plan -o {new}.tsv", f"{{new}}.tsv: output: {UNKNOWN} .json"),
    ("evaluate variants -r {fa} -i {bed} -m {sequences} -o -", f"output=-: {NO_STDOUT}"),
    ("evaluate sequences -i {bed} -m {sequences} -o -", f"output=-: {NO_STDOUT}"),
    ("evaluate sequences -i {bed} -m {sequences} --predictions -", f"predictions=-: {NO_STDOUT}"),
    ("score -r {fa} -i {bed} -o {new}.vcf --summary -", f"summary=-: {NO_STDOUT}"),
    ("score -r {fa} -i {bed} -o - --summary -", f"summary=-: {NO_STDOUT}"),
    ("attribute -r {fa} --region x --logo -", f"logo=-: {NO_STDOUT}"),
    ("embed -r {fa} -o -", f"output=-: {NO_STDOUT}"),
    ("pretrain -r {fa} -o -", f"output=-: {NO_STDOUT}"),
    ("report -m {sequences} -e {bed} -o {new}.png", f"{{new}}.png: output: {UNKNOWN} one of .html, .htm"),
]


def test_every_command_with_a_path_is_among_the_cases() -> None:
    known = {name for name in COMMANDS for words, _ in CASES if tuple(words.split()[: len(name)]) == name}
    assert known == COMMANDS.keys() - {("info",)}


def test_a_path_that_is_missing_or_taken_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    """One process for all, since each must leave nothing heavy behind."""
    folder = tmp_path / "given"
    (folder / "run").mkdir(parents=True)
    names = {
        "sequences": "classes",
        "tracks": "values",
        "tsv": "t.tsv",
        "json": "j.json",
        "fa": "g.fa",
        "bed": "b.bed",
        "out": "o.tsv",
        "run": "run",
        "no": "nowhere",
        "new": "new",
    }
    places = {name: str(folder / file) for name, file in names.items()} | {"folder": str(folder)}
    (folder / "run" / "x").write_text("x")
    for name in ("fa", "bed", "out", "tsv", "json"):
        Path(places[name]).write_text("x")
    (folder / "classes").mkdir()
    (folder / "d.tsv").mkdir()
    (folder / "classes" / "config.json").write_text('{"format": 1, "task": "sequence", "model": {}}')
    (folder / "classes" / "model.safetensors").touch()
    (folder / "values").mkdir()
    (folder / "values" / "config.json").write_text('{"format": 1, "task": "tracks", "tracks": ["x"], "model": {}}')
    (folder / "values" / "model.safetensors").touch()
    before = sorted(folder.rglob("*"))
    program = (
        "import contextlib, io, sys\n"
        "from genomamba.pipelines.cli import main\n"
        f"for words in {[words.format(**places).split() for words, _ in CASES]!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as errors:\n"
        "        code = main(words)\n"
        f"    print(code, sorted({HEAVY!r} & set(sys.modules)), errors.getvalue(), end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(CASES)
    for line, (words, expected) in zip(lines, CASES, strict=True):
        assert line.startswith(f"2 [] {expected.format(**places)}"), words
    assert sorted(folder.rglob("*")) == before


def test_plan_looks_at_no_data(run_cli: RunCli) -> None:
    small = "--model.d_model 16 --model.n_layer 1 --window 64 --batch-size 2"
    result = run_cli(*f"plan --on cpu -r no.fa --regions no.bed --valid-bed no.bed --test-bed no.bed {small}".split())
    assert result.code == 0, result.err


def test_a_name_on_the_hub_is_not_a_missing_path(monkeypatch: pytest.MonkeyPatch) -> None:
    check_source("owner/name")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"checkpoint=owner/name: .* install genomamba\[hf\]"):
        check_source("owner/name")


def test_a_mistyped_path_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"runs/typo: it is missing, and as runs is a folder here the .* not asked"
    ):
        check_source("runs/typo")
    check_source("others/typo")
