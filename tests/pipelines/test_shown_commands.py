"""Every command that the pages show is run, or is refused here by its text.

What each kind is covered by:

- `genomamba …`: run here in the order of the pages, and README's Python behind it, on a small genome and for a few
  steps. A part of one that is run, such as `genomamba score -m runs/mine`, is not run once more.
- pipes and bcftools: run by bash, in the folder that the others leave.
- the line of a Ray cluster: its options are parsed here; `test_score_ray` scores on a local one.
- `genomamba demo`: run here on a part of the bundled data, with small models; it has no options for that.
- `make …`: here only what they would run. The five minutes of `make demo` are those of `genomamba demo`.
- snakemake's line: a dry run here, where it is installed; `test_workflow` runs the workflow.
- what made the shipped model and the bundled data: its options are parsed here, for it needs whole genomes;
  `test_shipped` and `test_example` look at what it left.
- pip, conda and git: what they name is there. They are not run, for they would install.
- `python benchmarks/…`: `test_shown_benchmarks`.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pysam
import pytest
import yaml
from shown import (
    PAGES,
    ROOT,
    SNAKEMAKE,
    Command,
    blocks,
    commands_of,
    kind,
    of_kind,
    options_in_sentences,
    parsed,
    shown,
)
from world import RunCli, labelled_records, write_reference, write_vcf

from genomamba.data.example import example_path
from genomamba.data.tracks import TrackPiece, write_bigwig
from genomamba.data.vcf import VcfReader
from genomamba.pipelines import demo
from genomamba.pipelines.cli import COMMANDS, main
from genomamba.scoring import metrics

GENES = {"AAA1": "BRCA2", "BBB2": "PALB2", "CCC3": "TP53", "DDD4": "BRCA1"}
# The genome here is small, and there is little time.
SMALLER = {
    "chrIV:1-500000": "chrIV:1-500",
    "chrII:5001-5200": "chrII:5001-5030",
    "500": "50",
}
QUICK = {
    "pretrain": "--steps 2 --validate-every 2 --window 64 --batch-size 2 --model.d_model 16 --model.headdim 8",
    "finetune variants": "--epochs 1 --window 64",
    "finetune sequences": "--epochs 1",
    "finetune tracks": "--epochs 1 --window 64",
    "score": "--window 64",
}


def write_files(folder: Path) -> None:
    """Everything that the commands read."""
    random = np.random.default_rng(0)
    contigs = {name: "".join(random.choice(list("ACGT"), 9_000)) for name in ("chrII", "chrIV")}
    plain = write_reference(folder / "genome.fa", contigs)
    pysam.tabix_compress(str(plain), str(folder / "genome.fa.gz"))
    renamed = {"chrA": contigs["chrII"], "chrB": contigs["chrIV"]}
    records = [line.replace("chrA\t", "chrII\t").replace("chrB\t", "chrIV\t") for line in labelled_records(renamed)]
    for old, new in GENES.items():
        records = [line.replace(old, new) for line in records]
    labelled = write_vcf(folder / "clinvar.vcf", records, dict.fromkeys(contigs, 9000))
    for name in ("clinvar.vcf.gz", "variants.vcf.gz"):
        pysam.tabix_compress(str(labelled), str(folder / name))
    with (
        pysam.VariantFile(str(labelled)) as source,
        pysam.VariantFile(str(folder / "variants.bcf"), "wb", header=source.header) as copy,
    ):
        for record in source:
            copy.write(record)
    for name in ("heldout.bed", "regions.bed", "candidates.bed"):
        (folder / name).write_text("chrIV\t0\t400\theld\nchrII\t100\t300\tseen\n")
    rows = [
        f"{contigs['chrII'][40 * n : 40 * n + 40]},{n % 2},{'train train dev test'.split()[n // 2 % 4]}\n"
        for n in range(48)
    ]
    (folder / "enhancers.csv.gz").write_bytes(gzip.compress(("sequence,label,split\n" + "".join(rows)).encode()))
    coverage = [TrackPiece(name, 0, random.poisson(5, 9_000).astype(np.float32)) for name in contigs]
    write_bigwig(folder / "coverage.bw", dict.fromkeys(contigs, 9_000), coverage)
    golden = ROOT / "tests" / "golden"
    (folder / "path" / "to" / "caduceus-ps").mkdir(parents=True)
    shutil.copy(golden / "caduceus_ps.safetensors", folder / "path/to/caduceus-ps/model.safetensors")
    shutil.copy(golden / "mamba2.safetensors", folder / "weights.safetensors")
    (folder / "runs").mkdir()
    demo = folder / "demo"
    demo.mkdir()
    for name, source in (("reference.fa.gz", "genome.fa.gz"), ("clinvar.vcf.gz", "clinvar.vcf.gz")):
        shutil.copy(folder / source, demo / name)
    (demo / "classifier").symlink_to(folder / "runs" / "classifier")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every `genomamba …` was run, and README's Python."""
    folder = tmp_path_factory.mktemp("shown")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(metrics, "BOOTSTRAPS", 10)
        for command in of_kind("genomamba"):
            words = smaller(command.words)[1:]
            assert main(words) == 0, f"{command.page}: {command.text}"
            for flag, name in itertools.pairwise(words):
                if flag in ("-o", "--logo", "--heatmap", "--summary"):
                    assert (folder / name).exists(), command.text
        scope: dict[str, object] = {}
        python = blocks(PAGES[0].read_text(encoding="utf-8"), "python")
        assert len(python) > 2
        for block in python:
            exec(block.replace("prompt, 1000,", "prompt, 200,"), scope)
        assert len(scope["logits"]) == 2  # type: ignore[arg-type]
    return folder


def smaller(words: list[str]) -> list[str]:
    """The same command, for a small genome and little time."""
    words = [SMALLER.get(word, word) for word in words]
    return words + QUICK.get(" ".join(words[1:3]), QUICK.get(words[1], "")).split()


def test_every_command_has_a_rule() -> None:
    assert [f"{command.page}: {command.text}" for command in shown() if kind(command) is None] == []
    assert {kind(command) for command in shown()} >= {"genomamba", "part", "pipe", "benchmark", "make", "demo"}


@pytest.mark.parametrize(
    "page", ["```\nsamtools faidx a.fa\n```\n", "run `python setup.py install`", "```\nmake demo\n\ncd there\n```\n"]
)
def test_one_without_a_rule_is_found(page: str) -> None:
    assert None in [kind(command) for command in commands_of("page", page)]


def test_options_in_sentences_are_those_of_commands(run_cli: RunCli) -> None:
    helps = "".join(run_cli(*name, "--help").out for name in COMMANDS)
    assert len(options_in_sentences()) > 15
    assert [option for option in options_in_sentences() if not re.search(rf"{option}\b(?![.-])", helps)] == []


def test_what_the_pages_show_runs(ran: Path) -> None:
    assert len(of_kind("genomamba")) > 20
    assert (ran / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", of_kind("pipe"), ids=lambda command: command.text)
def test_pipes_run(ran: Path, command: Command, tmp_path: Path) -> None:
    programs = {part.split()[0] for part in command.text.split("|")} - {"genomamba"}
    programs = {name for name in programs if re.fullmatch(r"[a-z]+", name)}
    if missing := sorted(name for name in programs if shutil.which(name) is None):
        pytest.skip(f"{' and '.join(missing)} not on PATH, so this was not run: {command.text}")
    program = tmp_path / "genomamba"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genomamba "$@"\n')
    program.chmod(0o755)
    text = command.text.replace("genomamba score", f"genomamba score {QUICK['score']}")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {text}"],
        cwd=ran,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if programs == {"bcftools"}:
        kept = [line.split("\t")[7] for line in done.stdout.splitlines() if not line.startswith("#")]
        with pysam.VariantFile(str(ran / "scored.vcf.gz")) as file:
            wanted = [record for record in file if record.info["GM_PROB"][0] > 0.5]
        assert len(kept) == len(wanted)
        assert "GM_PROB" in done.stdout
    else:
        out = ran / re.split(r">\s*", command.text)[1]
        with pysam.VariantFile(str(out)) as file, pysam.VariantFile(str(ran / "variants.vcf.gz")) as given:
            scored = list(file)
            assert [record.pos for record in scored] == [record.pos for record in given]
        assert all("GM_LLR" in record.info for record in scored)


@pytest.mark.parametrize("command", of_kind("cluster"), ids=lambda command: command.text)
def test_options_of_a_cluster_are_ours(command: Command, run_cli: RunCli) -> None:
    found = run_cli(*command.words[1:], "--print_config")
    assert found.code == 0, found.err
    read = yaml.safe_load(found.out)
    assert (read["engine"], read["ray_address"]) == ("ray", command.words[command.words.index("--ray-address") + 1])


@pytest.mark.parametrize("command", of_kind("recipe"), ids=lambda command: command.text[:60])
def test_the_shipped_models_recipe_is_ours(command: Command, run_cli: RunCli) -> None:
    found = run_cli(*command.words[1:], "--print_config")
    assert found.code == 0, found.err
    read = yaml.safe_load(found.out)
    assert len(read["reference"]) == len(read["mixture"]) == 8


@pytest.mark.parametrize("command", of_kind("module"), ids=lambda command: command.words[2])
def test_options_of_makers_are_taken(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, command.words[2], raising=False)  # else it warns that another test has it
    assert parsed(monkeypatch, command.words[3:], command.words[2], runpy.run_module)


def test_the_demo_runs(tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one variant in sixty, two steps of training and windows of 32."""

    @contextmanager
    def thinned(name: str) -> Iterator[Path]:
        with example_path(name) as whole:  # type: ignore[arg-type]
            if not name.endswith(".vcf.gz"):
                yield whole
                return
            with VcfReader(whole) as reader:
                lines = [*reader.header, *(record.text for number, record in enumerate(reader) if number % 60 == 0)]
        (tmp_path / "thin.vcf").write_text("\n".join(lines) + "\n")
        pysam.tabix_compress(str(tmp_path / "thin.vcf"), str(tmp_path / name), force=True)
        yield tmp_path / name

    few = {"pretrain": "--steps 2 --validate-every 2 --window 64 --batch-size 2", "finetune": "--window 32"}
    whole_steps = demo.steps

    def short_steps(folder: Path) -> list[demo.Step]:
        found = whole_steps(folder)
        for step in found:
            step.words += few.get(step.words[0], "").split()
        return found

    monkeypatch.setattr("genomamba.data.example.example_path", thinned)
    monkeypatch.setattr(demo, "steps", short_steps)
    monkeypatch.chdir(tmp_path)
    (command,) = of_kind("demo")
    result = run_cli(*command.words[1:])
    assert result.code == 0, result.err
    assert "Done in" in result.out
    for name in ("report.html", "scored.vcf.gz", "evaluation.json", "classifier/config.json", "pretrained/config.json"):
        assert f"{name.partition('/')[0]} " in result.out.replace("/ ", " ")
        assert (tmp_path / "demo" / name).exists()


MADE = {
    "demo": ["genomamba demo --force"],
    "test": ["ruff format --check", "ruff check", "mypy", "lint-imports", "python -m pytest -n"],
    "test-gpu": ["python -m pytest -m gpu"],
    "format": ["ruff format .", "ruff check --fix"],
    "check": ["ruff format --check", "ruff check", "mypy", "lint-imports"],
}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on PATH, so no target was looked at")
@pytest.mark.parametrize("command", of_kind("make"), ids=lambda command: command.text)
def test_make_would_run_what_is_said(command: Command) -> None:
    done = subprocess.run([*command.words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in MADE[command.words[1]]:
        assert f".venv/bin/{line}" in done.stdout


@pytest.mark.parametrize("command", of_kind("snakemake"), ids=lambda command: command.text)
def test_the_workflow_is_planned(command: Command, tmp_path: Path) -> None:
    file = Path(command.words[command.words.index("-s") + 1])
    assert (ROOT / file).is_file()
    assert "pipelines/workflow/config.yaml" in command.text
    if SNAKEMAKE is None:
        pytest.skip(f"snakemake is not on PATH, nor in .venv/snakemake, so this was not run: {command.text}")
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    settings = yaml.safe_load((ROOT / "pipelines/workflow/config.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    for name in (settings["reference"], settings["labelled"], *settings["variants"].values()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = subprocess.run(
        [SNAKEMAKE, *command.words[1:], "-n"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", of_kind("pip") + of_kind("conda") + of_kind("git"), ids=lambda command: command.text
)
def test_what_would_be_installed_is_there(command: Command) -> None:
    match command.words:
        case ["pip", "install", "-e", extra]:
            names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert extra.removeprefix(".[").removesuffix("]") in names
        case ["pip", "install", name]:
            assert name == "snakemake"
        case ["conda", "env", "create", "-f", file]:
            environment = yaml.safe_load((ROOT / file).read_text())
            assert environment["name"] == "genomamba"
            (own,) = (each["pip"] for each in environment["dependencies"] if isinstance(each, dict))
            assert (ROOT / own[0].removeprefix("-c ")).is_file()
            assert own[1] == "-e .[test]"
        case ["git", "clone", "<this", "repository>", *_]:
            assert (ROOT / "Makefile").is_file()
        case words:
            pytest.fail(f"nothing looks at {words}")
