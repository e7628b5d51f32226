"""What `genomamba score` reads and writes besides plain VCF, and what its options leave as it is."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pysam
import pytest
import torch
from world import RunCli, World, write_vcf

from genomamba.data.vcf import VcfReader, info_value
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.scoring.distances import Distances
from genomamba.scoring.variants import VariantScorer

KEYS = ("GM_LLR", "GM_PROB", *(f"GM_{name.upper()}" for name in Distances._fields))
FORMATS = (".vcf", ".vcf.gz", ".bcf", ".tsv", ".tsv.gz", ".parquet")


@pytest.fixture(scope="module")
def source(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 records: SNVs and insertions, one with two ALTs, one with a symbolic one."""
    records = [line for line in world.labelled.read_text().splitlines() if not line.startswith("#")][:60]
    fields = records[1].split("\t")
    records[1] = "\t".join([*fields[:4], f"{fields[4]},{fields[3]}GG", *fields[5:]])
    fields = records[2].split("\t")
    records[2] = "\t".join([*fields[:4], "<DEL>", *fields[5:]])
    return write_vcf(tmp_path_factory.mktemp("source") / "in.vcf", records, {"chrA": 10_000, "chrB": 9_000})


@pytest.fixture
def words(world: World, source: Path) -> tuple[object, ...]:
    return ("score", "-r", world.reference, "-i", source, "-m", world.classifier)


def numbers(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(ID, ALT) to the numbers of an annotated file, NaN where there is none."""
    found = {}
    with VcfReader(path) as reader:
        for record in reader:
            values = {key: (info_value(record.info, key) or "").split(",") for key in KEYS}
            for place, alt in enumerate(record.alts):
                found[record.id, alt] = {
                    key: math.nan if each == [""] or each[place] == "." else float(each[place])
                    for key, each in values.items()
                }
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path).to_pylist()
        return [{key: math.nan if value is None else value for key, value in row.items()} for row in table]
    text = path.read_text() if path.suffix == ".tsv" else pysam.BGZFile(str(path)).read().decode()
    table = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    for row in table:
        for column in ("llr", "prob", *Distances._fields):
            if column in row:
                row[column] = math.nan if row[column] == "NA" else float(row[column])
    return table


def test_every_format_holds_the_same(words: tuple[object, ...], run_cli: RunCli, tmp_path: Path) -> None:
    for suffix in FORMATS:
        result = run_cli(*words, "-o", tmp_path / f"out{suffix}", "--distances", "--shard-size", 25)
        assert result.code == 0, result.err
    wanted = numbers(tmp_path / "out.vcf")
    assert len(wanted) == 61
    assert sum(math.isnan(each["GM_LLR"]) for each in wanted.values()) == 1
    assert not any(math.isnan(value) for key, each in wanted.items() if key[1] != "<DEL>" for value in each.values())
    assert all(each["GM_SITE_L2"] > 0 for key, each in wanted.items() if key[1] != "<DEL>")
    for suffix in (".vcf.gz", ".bcf"):
        other = numbers(tmp_path / f"out{suffix}")
        assert other.keys() == wanted.keys()
        for key, each in wanted.items():
            assert other[key] == pytest.approx(each, rel=1e-4, nan_ok=True)
    for suffix in (".tsv", ".tsv.gz", ".parquet"):
        table = rows(tmp_path / f"out{suffix}")
        assert [(row["id"], row["alt"]) for row in table] == list(wanted)
        for row, (key, each) in zip(table, wanted.items(), strict=True):
            assert row["model"] == "classifier"
            assert row["status"] == ("SKIP_SYMBOLIC" if key[1] == "<DEL>" else "OK")
            assert [row[name] for name in ("llr", "prob", *Distances._fields)] == pytest.approx(
                list(each.values()), rel=1e-4, nan_ok=True
            )
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        assert all(file.header.info[key].number == "A" for key in KEYS)


@pytest.mark.parametrize("suffix", [".bcf", ".tsv.gz", ".parquet"])
def test_each_format_is_resumed_to_the_byte(
    suffix: str, words: tuple[object, ...], run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*words, "--distances", "--shard-size", 25)
    assert run_cli(*words, "-o", tmp_path / f"whole{suffix}").code == 0
    call, calls = VariantScorer.__call__, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return call(*args)

    with monkeypatch.context() as patch:
        patch.setattr(VariantScorer, "__call__", interrupted)
        assert run_cli(*words, "-o", tmp_path / f"cut{suffix}").code == 130
    assert run_cli(*words, "-o", tmp_path / f"cut{suffix}", "--resume").code == 0
    assert (tmp_path / f"cut{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"cut{suffix}", f"whole{suffix}"}


def test_an_unknown_extension_is_refused_at_once(words: tuple[object, ...], run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli(*words, "-o", tmp_path / "out.csv")
    assert result.code == 2
    assert "use one of .vcf, .vcf.gz, .bcf, .tsv, .tsv.gz, .parquet" in result.err
    assert not list(tmp_path.iterdir())


def test_the_summary_counts_by_status(words: tuple[object, ...], run_cli: RunCli, tmp_path: Path) -> None:
    summary = tmp_path / "s.json"
    assert run_cli(*words, "-o", tmp_path / "out.vcf", "--summary", summary).code == 0
    counts = json.loads(summary.read_text())
    assert counts == {
        "records": 60,
        "alleles": 61,
        "scored": 60,
        "by_status": {"OK": 60, "SKIP_SYMBOLIC": 1},
    }
    for output in ("-", tmp_path / "other.vcf"):
        refused = run_cli(*words, "-o", output, "--summary", summary)
        assert refused.code == 2
        assert "s.json: the output exists" in refused.err
    assert not (tmp_path / "other.vcf").exists()
    summary.unlink()
    assert run_cli(*words, "-o", "-", "--summary", summary).code == 0
    assert json.loads(summary.read_text()) == counts


def test_stdin_and_bcf_are_read(
    words: tuple[object, ...], source: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli(*words, "-o", tmp_path / "file.vcf").code == 0
    pysam.bcftools.view("-Ob", "-o", str(tmp_path / "in.bcf"), str(source), catch_stdout=False)  # type: ignore[attr-defined]
    for name, given in (("stdin", source), ("bcf", tmp_path / "in.bcf")):
        with monkeypatch.context() as patch, given.open("rb") as stream:
            patch.setattr(sys, "stdin", io.TextIOWrapper(stream))
            assert run_cli(*words, "-i", "-", "-o", tmp_path / f"{name}.vcf").code == 0
    assert (tmp_path / "stdin.vcf").read_bytes() == (tmp_path / "file.vcf").read_bytes()
    assert str(numbers(tmp_path / "bcf.vcf")) == str(numbers(tmp_path / "file.vcf"))


@pytest.mark.parametrize("equivariant", [False, True])
def test_a_masked_model_scores_the_site(
    equivariant: bool, words: tuple[object, ...], run_cli: RunCli, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, n_layer=1, d_state=4, bidirectional=True, rc_equivariant=equivariant)
    save_model(MaskedLM(config), tmp_path / "masked", card="", provenance={"window": 64})
    result = run_cli(*words, "-m", tmp_path / "masked", "-o", tmp_path / "out.vcf", "--distances")
    assert result.code == 0, result.err
    found = numbers(tmp_path / "out.vcf")
    scored = [each for key, each in found.items() if key[1] != "<DEL>"]
    assert len({each["GM_LLR"] for each in scored}) > 50
    assert all(math.isnan(each["GM_PROB"]) and each["GM_POOL_COSINE"] >= 0 for each in scored)


def test_what_changes_no_score(words: tuple[object, ...], run_cli: RunCli, tmp_path: Path) -> None:
    found = []
    for number, more in enumerate(
        (
            (),
            ("-@", 2, "--batch-size", 5),
            ("--reuse-state", "false", "--shard-size", 7),
            ("--batch-size", "auto", "--shard-size", 60),
        )
    ):
        result = run_cli(*words, "-o", tmp_path / f"{number}.parquet", "--distances", *more)
        assert result.code == 0, result.err
        table = rows(tmp_path / f"{number}.parquet")
        found.append([[row[name] for name in ("llr", "prob", *Distances._fields)] for row in table])
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=1e-5, atol=1e-5)


def test_shared_windows_are_a_choice_that_is_checked(
    words: tuple[object, ...], world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    def llrs(name: str, *more: object) -> list[float]:
        assert run_cli(*words, "-o", tmp_path / name, *more).code == 0
        return [row["llr"] for row in rows(tmp_path / name) if row["status"] == "OK"]

    own, shared = llrs("own.tsv", "--window-step", 1), llrs("shared.tsv", "--window-step", 16)
    assert np.corrcoef(own, shared)[0, 1] > 0.9
    assert own != shared
    # A classifier's variants stay in the middle; a causal language model's windows are shared.
    assert llrs("classifier.tsv") == own
    model = ("-m", world.pretrained, "--window", 64)
    default = llrs("default.tsv", *model)
    assert default == llrs("sixteenth.tsv", *model, "--window-step", 4)
    assert default != llrs("middle.tsv", *model, "--window-step", 1)
    refused = run_cli(*words, "-o", tmp_path / "c.tsv", "--window-step", 17)
    assert (refused.code, refused.err) == (2, "window_step=17: at most a quarter of the window, 16; lower it\n")
