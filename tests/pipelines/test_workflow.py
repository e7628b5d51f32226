"""The Snakemake workflow, from a part of the bundled data to scored files and a page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from shown import SNAKEMAKE

import genomamba.pipelines
from genomamba.data.example import example_path
from genomamba.data.vcf import VcfReader

SNAKEFILE = Path(genomamba.pipelines.__file__).parent / "workflow" / "Snakefile"
SMALL_MODEL = "--model.d_model 8 --model.n_layer 1 --model.d_state 2 --device cpu"


def thinned(path: Path, out: Path, every: int) -> Path:
    """One record in so many, with the header."""
    with VcfReader(path) as reader:
        lines = [*reader.header, *(record.text for number, record in enumerate(reader) if number % every == 0)]
    out.write_text("\n".join(lines) + "\n")
    return out


@pytest.mark.skipif(
    SNAKEMAKE is None, reason="snakemake is not on PATH, nor in .venv/snakemake: make test puts it there"
)
def test_from_the_bundled_data_to_scored_files(tmp_path: Path) -> None:
    with example_path("reference.fa.gz") as path:
        shutil.copy(path, tmp_path / "reference.fa.gz")
    for name, every in (("clinvar.vcf.gz", 60), ("variants.vcf.gz", 20)):
        with example_path(name) as path:  # type: ignore[arg-type]
            thinned(path, tmp_path / name.removesuffix(".gz"), every)
    config = {
        "genomamba": f"{sys.executable} -m genomamba",
        "reference": "reference.fa.gz",
        "labelled": "clinvar.vcf",
        "variants": {"own": "variants.vcf"},  # not the name of the example's, which must not come in
        "formats": ["vcf.gz", "parquet"],
        "pretrain": f"{SMALL_MODEL} --window 64 --batch-size 4 --steps 2 --validate-every 2"
        " --valid chr17:7670000-7672000",
        "finetune": "--train BRCA2 PALB2 --valid TP53 --test BRCA1 --window 32 --epochs 1 --device cpu",
        "score": "--device cpu --shard-size 40",
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    command = [SNAKEMAKE, "-s", str(SNAKEFILE), "--configfile", "mine.yaml", "--cores", "1", "--quiet", "all"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(genomamba.__file__).parents[1]),
    }  # not ours: snakemake has its own
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "results"
    with VcfReader(tmp_path / "variants.vcf") as given, VcfReader(out / "scored" / "own.vcf.gz") as scored:
        wanted = [(record.contig, record.pos, record.id) for record in given]
        assert [(record.contig, record.pos, record.id) for record in scored] == wanted
    table = pyarrow.parquet.read_table(out / "scored" / "own.parquet").to_pylist()
    assert {row["id"] for row in table} == {identifier for _, _, identifier in wanted}
    summaries = [json.loads((out / "scored" / f"own.{form}.json").read_text()) for form in ("vcf.gz", "parquet")]
    assert summaries[0] == summaries[1]
    assert summaries[0]["records"] == len(wanted)
    assert "BRCA1" in (out / "report.html").read_text()


def test_its_commands_and_options_are_ours() -> None:
    from genomamba.pipelines.cli import COMMANDS

    text = SNAKEFILE.read_text()
    for name in ("index", "pretrain", "finetune variants", "evaluate variants", "report", "score"):
        assert f"{{GENOMAMBA}} {name} " in text
        assert tuple(name.split()) in COMMANDS
    assert set(yaml.safe_load((SNAKEFILE.parent / "config.yaml").read_text())) >= {"reference", "labelled", "variants"}
