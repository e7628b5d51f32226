"""The frame of the command line: help, configuration, errors in the house's form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from world import HEAVY, RunCli, World

from genomamba import __version__
from genomamba.pipelines.cli import COMMANDS
from genomamba.pipelines.options import PRESETS

NAMES = [" ".join(name) for name in COMMANDS]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_is_quick_because_it_imports_nothing_heavy(name: str) -> None:
    program = (
        "import sys, time\n"
        "from genomamba.pipelines.cli import main\n"
        f"code = main({[*name.split(), '--help']!r})\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY [] 0", done.stdout
    assert "usage: genomamba" in done.stdout


def test_what_trains_nothing_starts_soon_because_it_imports_no_lightning(
    world: World, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.bed").write_text("chrA\t0\t40\n")
    (tmp_path / "s.fa").write_text(">a\nACGT\n")
    genome = f"-r {world.reference} -m {world.pretrained}"
    commands = [
        f"score -r {world.reference} -m {world.classifier} -i {world.labelled} -o {tmp_path}/o.vcf",
        f"likelihood {genome} --region chrA:1-40 -o {tmp_path}/o.tsv",
        f"attribute {genome} --region chrA:1-4 -o {tmp_path}/a.tsv",
        f"embed {genome} -b {tmp_path}/r.bed -o {tmp_path}/o.npz",
        f"evaluate regions {genome} -b {tmp_path}/r.bed -o {tmp_path}/e.tsv",
        f"generate -m {world.pretrained} -l 4 -o {tmp_path}/o.fa",
        f"predict -r {tmp_path}/s.fa -m {trained}/model -o {tmp_path}/p.tsv",
    ]
    program = (
        "import sys\n"
        "from genomamba.pipelines.cli import main\n"
        f"for command in {commands!r}:\n"
        "    print(main([*command.split(), '--device', 'cpu']), 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0 False"] * len(commands), done.stderr


def test_every_command_is_listed_in_the_help_with_its_summary(run_cli: RunCli) -> None:
    shown = " ".join(run_cli("--help").out.split())
    for name, command in COMMANDS.items():
        assert " ".join(name) in shown
        assert command.summary in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_is_for(run_cli: RunCli, name: str) -> None:
    options = re.split(r"\n  (?=-)", run_cli(*name.split(), "--help").out)[1:]
    assert len(options) > 1
    for option in options:
        first, *others = option.split("\n\n")[0].splitlines()
        said = " ".join([*re.split(r" {2,}", first)[1:], *others]).strip()
        assert said, option
        assert not said.startswith("(type:"), option


def test_every_command_is_documented_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name in NAMES:
        assert f"genomamba {name}" in readme, name


def test_version(run_cli: RunCli) -> None:
    assert run_cli("--version").out == f"genomamba {__version__}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nope", "nope: no such command; choose from "),
        ("finetune", None),
        ("finetune nope", "finetune nope: no such command; choose from sequences, tracks, variants"),
        ("pretrain --windw 3 -r a -o b", "--windw: unknown option; the nearest is --window"),
        ("pretrain -r a -o b --model.dmodel 3", "--model.dmodel: unknown option; the nearest is --model.d_model"),
        ("pretrain -r a", "output: missing; see `genomamba pretrain --help`"),
        ("pretrain -r a -o b --window x", "window=x: expected int; see `genomamba pretrain --help`"),
        ("pretrain -r a -o b --model.d_model 0", "model.d_model=0: it must be at least 1; raise it"),
        ("pretrain -r a -o b --window 0", "window=0: it must be at least 2; raise it"),
        ("pretrain -r a -o b --steps 0", "steps=0: it must be at least 1; raise it"),
        ("pretrain -r a -o b --seed -1", "seed=-1: it must be at least 0; raise it"),
        ("pretrain -r a -o b --optimizer.warmup 2", "optimizer.warmup=2.0: it must be between 0 and 1; change it"),
        ("score -r a -i b -m c -o d --batch-size 0", "batch_size=0: it must be at least 1; raise it"),
        ("score -r a -i b -m c -o d --window -4", "window=-4: it must be at least 2; raise it"),
        ("pretrain -r a -o b -c nope", "config=nope: no such file or preset; the presets are "),
        ("info x", "x: it stands where no value is expected; see `genomamba info --help`"),
        ("index a b", "b: it stands where no value is expected; see `genomamba index --help`"),
        ("score -r a -i b -o c --max-skip-frac 5", "max_skip_frac=5.0: it must be at most 1; lower it"),
        ("score -r a -i b -o c --max-mismatch-frac 5", "max_mismatch_frac=5.0: it must be at most 1; lower it"),
        ("pretrain -r a -o b --max-n-frac 20", "max_n_frac=20.0: it must be at most 1; lower it"),
        ("pretrain -r a -o b --model.norm_eps 0", "model.norm_eps=0.0: it must be more than 0; change it"),
        ("pretrain -r a -o b --steps x", "steps=x: expected int or null; see `genomamba pretrain --help`"),
        ("pretrain -r a -o b --model.dt_rank [1]", "model.dt_rank=[1]: expected int or null; see "),
        ("pretrain -r a -o b --model.complement 3", "model.complement=3: expected list[int] or null; see "),
        ("pretrain -r a -o b --model.complement [x]", "model.complement=['x']: expected list[int] or null; see "),
        ("score -r a -i b -o d --devices x", "devices=x: expected int or 'auto'; see `genomamba score --help`"),
        ("pretrain -r a -o b --optimizer.lr nan", "optimizer.lr=nan: expected a finite number; see "),
        ("pretrain -r a -o b --max-minutes inf", "max_minutes=inf: expected a finite number or null; see "),
        ("pretrain -r a -o b --model 3", "model: it is a group of options; give them as --model.NAME; see "),
        ("pretrain -r a -o b --valid", "--valid: it needs a value; see `genomamba pretrain --help`"),
        ("pretrain -r a -o", "--output: it needs a value; see `genomamba pretrain --help`"),
        ("pretrain -r a -o b --seed 4294967296", "seed=4294967296: it must be at most 4294967295; lower it"),
        ("generate --seed 4294967296", "seed=4294967296: it must be at most 4294967295; lower it"),
        ("pretrain -r a -o b --device tpu", "device=tpu: expected one of 'auto', 'cpu', 'gpu'; see "),
    ],
)
def test_mistakes_are_one_line_and_exit_2(run_cli: RunCli, words: str, line: str | None) -> None:
    result = run_cli(*words.split())
    assert result.code == 2
    assert result.out == ""
    if line is None:
        assert "usage: genomamba finetune" in result.err
    else:
        assert result.err.startswith(line)
        assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("window: 5\nmodl:\n  d_model: 3\n", "2: modl: unknown key; the nearest is model"),
        ("model:\n  d_layer: 3\n", "2: model.d_layer: unknown key; the nearest is model.n_layer"),
        ("d_model: 3\n", "1: d_model: unknown key; the nearest is model.d_model"),
        ("window: [1\n", "2: it is not YAML"),
        ("window: 5\nmodel:\n  n_layer: 3\n  n_layer: 2\n", "4: model.n_layer: the key stands twice; keep one"),
        ("window: \0\n", " it is not YAML (unacceptable character"),
        ("- 1\n", "1: expected `key: value` pairs"),
    ],
)
def test_a_misspelt_key_is_named_with_its_line_and_nearest(
    run_cli: RunCli, tmp_path: Path, text: str, line: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = run_cli("pretrain", "-r", "a", "-o", tmp_path / "out", "-c", path)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"{path}:{line}")
    assert not (tmp_path / "out").exists()


def test_printed_config_reads_back_as_it_is(run_cli: RunCli, tmp_path: Path) -> None:
    words = ["pretrain", "-r", "a.fa", "-o", "b", "--valid", "chr1:1-10", "chr2", "--model.d_model", "32"]
    first = run_cli(*words, "--print_config").out
    (tmp_path / "c.yaml").write_text(first)
    assert run_cli("pretrain", "-c", tmp_path / "c.yaml", "--print_config").out == first
    # What stands on the command line counts, wherever it stands.
    for words in (("-o", "here", "-c", tmp_path / "c.yaml"), ("-c", tmp_path / "c.yaml", "-o", "here")):
        assert yaml.safe_load(run_cli("pretrain", *words, "--print_config").out)["output"] == "here"
    assert yaml.safe_load(first)["valid"] == ["chr1:1-10", "chr2"]


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_read(run_cli: RunCli, preset: str) -> None:
    command = ("finetune", "variants", "-i", "a", "-m", "b") if "finetune" in preset else ("pretrain",)
    printed = run_cli(*command, "-r", "a.fa", "-o", "b", "-c", preset, "--print_config")
    assert printed.code == 0, printed.err
    shown, given = yaml.safe_load(printed.out), yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    for key, value in given.items():
        if isinstance(value, dict):
            assert value.items() <= shown[key].items()
        else:
            assert shown[key] == value


def test_info_names_the_scan_and_its_agreement(run_cli: RunCli) -> None:
    result = run_cli("info")
    assert result.code == 0
    assert re.search(r"scan on cpu +cpu; agrees with the fp64 reference \(relative error \d\.\de-\d\d\)", result.out)


def test_a_closed_pipe_ends_quietly() -> None:
    program = f"{sys.executable} -m genomamba pretrain --help | head -n 1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
