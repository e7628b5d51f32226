"""The command line as a function, and a world with models trained in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sequence_tables import QUICK, SMALL, rows, write_table
from world import SHARDS, CliResult, RunCli, Words, World, labelled_records, write_reference, write_vcf

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.pipelines.cli import main
from genomamba.scoring import metrics


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an interval the commands show that it is the one computed; its coverage is tested where it is computed."""
    monkeypatch.setattr(metrics, "BOOTSTRAPS", 10)


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """``run_cli("index", path)`` → exit code, stdout, stderr."""

    def run(*words: object) -> CliResult:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return CliResult(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def genome() -> dict[str, str]:
    random = np.random.default_rng(0)
    return {name: "".join(random.choice(list("ACGT"), size)) for name, size in (("chrA", 10_000), ("chrB", 9_000))}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> World:
    folder = tmp_path_factory.mktemp("world")
    reference = write_reference(folder / "genome.fa", genome)
    sizes = {name: len(sequence) for name, sequence in genome.items()}
    labelled = write_vcf(folder / "labelled.vcf", labelled_records(genome), sizes)
    made = World(reference, labelled, folder / "pretrained", folder / "classifier")
    common = ("-r", str(reference), "-o")
    small = "--model.d_model 16 --model.n_layer 2 --model.d_state 4"
    sizes_of_run = "--window 128 --batch-size 4 --steps 12 --validate-every 6"
    pretraining = [*common, str(made.pretrained), "--valid", "chrB:1-900", *small.split(), *sizes_of_run.split()]
    assert main(["pretrain", *pretraining]) == 0
    splits = "--train AAA1 BBB2 --valid CCC3 --test DDD4 --window 64 --batch-size 8 --epochs 2"
    given = [*common, str(made.classifier), "-i", str(labelled), "-m", str(made.pretrained)]
    assert main(["finetune", "variants", *given, *splits.split()]) == 0
    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes from scratch, ``model``, beside its table, ``table.csv``."""
    folder = tmp_path_factory.mktemp("sequences")
    table = write_table(folder / "table.csv", rows())
    words = ["finetune", "sequences", "-i", str(table), "-o", str(folder / "model"), *SMALL, *QUICK]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="session")
def scoring(tmp_path_factory: pytest.TempPathFactory, genome: dict[str, str]) -> Words:
    """A `score` without -o, in shards that are few records each, and slow enough to be caught at work."""
    folder = tmp_path_factory.mktemp("scoring")
    torch.manual_seed(0)
    save_model(CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4)), folder / "model", card="", provenance={})
    sizes = {name: len(sequence) for name, sequence in genome.items()}
    records = labelled_records(genome)
    source = write_vcf(folder / "in.vcf", records, sizes)
    reference = write_reference(folder / "genome.fa", genome)
    fixed = ("score", "-r", reference, "-m", folder / "model", "-i", source, "--window", 512, "--device", "cpu")
    return (*fixed, "--shard-size", len(records) // SHARDS, "--batch-size", 1)
