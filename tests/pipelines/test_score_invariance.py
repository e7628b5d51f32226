"""What must not change the score of a real variant: ClinVar's of BRCA1, through the command line."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from world import CliResult, write_reference

from genomamba.data.example import example_path
from genomamba.data.reference import Reference
from genomamba.data.vcf import VcfReader
from genomamba.genome.variant import Variant, normalise
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.scoring.variants import VariantScorer

START, END = 43_040_000, 43_130_000  # of the slice of chr17 that holds BRCA1, 0-based
HEADER = ["##fileformat=VCFv4.2", f"##contig=<ID=chr17,length={END - START}>"]
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
PAIRS = str.maketrans("ACGT", "TGCA")
Scores = dict[str, tuple[float, ...]]
Score = Callable[..., Scores]


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> str:
    with example_path("reference.fa.gz") as path:
        reference = Reference.open(path, cache_dir=tmp_path_factory.mktemp("index"))
        return reference.sequence("chr17", START, END)


@pytest.fixture(scope="module")
def variants() -> list[tuple[str, Variant]]:
    """Every 20th record, and every third that is no SNV, in the slice's coordinates; alleles of up to 40 bases."""
    found = []
    with example_path("variants.vcf.gz") as path, VcfReader(path) as reader:
        for number, record in enumerate(reader):
            if set(record.ref + record.alts[0]) <= set("ACGT") and len(record.alts) == 1:
                variant = Variant("chr17", record.pos - 1 - START, record.ref, record.alts[0])
                core = variant.trimmed()
                if number % (20 if variant.kind == "SNV" else 3) == 0 and max(len(core.ref), len(core.alt)) <= 40:
                    found.append((f"{record.id}_{number}", variant))
    return found


def write_variants(path: Path, variants: list[tuple[str, Variant]]) -> Path:
    lines = [f"chr17\t{v.pos}\t{name}\t{v.ref}\t{v.alt}\t.\t.\t." for name, v in variants]
    path.write_text("\n".join([*HEADER, COLUMNS, *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With random weights, large enough for every base to matter."""
    folder, small = tmp_path_factory.mktemp("models"), {"d_model": 16, "n_layer": 2, "d_state": 4}
    torch.manual_seed(0)
    made = {"causal": CausalLM(ModelConfig(**small)), "masked": MaskedLM(ModelConfig(**small, bidirectional=True))}
    for name, model in made.items():
        with torch.no_grad():
            model.backbone.embedding.weight.normal_(std=0.7)
        save_model(model, folder / name, card="", provenance={"window": 97})
    return {name: folder / name for name in made}


@pytest.fixture
def score(run_cli: Callable[..., CliResult], sequence: str, models: dict[str, Path], tmp_path: Path) -> Score:
    """``score(variants, *options, sequence=…)`` → ID to llr and distances."""
    count = 0

    def run(
        variants: list[tuple[str, Variant]], *more: object, genome: str = sequence, model: str = "causal"
    ) -> Scores:
        nonlocal count
        count += 1
        source = write_variants(tmp_path / f"{count}.vcf", variants)
        reference = tmp_path / f"{abs(hash(genome))}.fa"
        if not reference.exists():
            write_reference(reference, {"chr17": genome})
        out = tmp_path / f"{count}.parquet"
        words = ("-r", reference, "-i", source, "-m", models[model], "-o", out, "--distances", *more)
        result = run_cli("score", *words)
        assert result.code == 0, result.err
        found = read(out)
        assert list(found) == [name for name, _ in variants]
        return found

    return run


def read(path: Path) -> Scores:
    """ID to llr and distances."""
    table = pyarrow.parquet.read_table(path).to_pylist()
    return {row["id"]: tuple(row[key] for key in row if key.startswith(("llr", "site", "pool"))) for row in table}


def assert_same(first: Scores, second: Scores) -> None:
    assert first.keys() == second.keys()
    names = list(first)
    np.testing.assert_allclose([first[n] for n in names], [second[n] for n in names], rtol=1e-5, atol=1e-5)


def test_there_are_variants_of_every_kind(variants: list[tuple[str, Variant]], score: Score) -> None:
    kinds = [variant.kind for _, variant in variants]
    assert {kind: kinds.count(kind) > 5 for kind in ("SNV", "MNV", "INS", "DEL", "INDEL")} == dict.fromkeys(
        ("SNV", "MNV", "INS", "DEL", "INDEL"), True
    )
    llrs = [llr for llr, *_ in score(variants).values()]
    assert len(set(llrs)) > 0.9 * len(variants)
    assert not any(math.isnan(llr) for llr in llrs)


@pytest.mark.parametrize("model", ["causal", "masked"])
def test_batches_order_workers_and_shards(model: str, variants: list[tuple[str, Variant]], score: Score) -> None:
    wanted = score(variants, model=model)
    shuffled = random.Random(0).sample(variants, len(variants))
    assert_same(wanted, score(shuffled, model=model))
    for more in (
        ("--batch-size", 1),
        ("--batch-size", 13, "--shard-size", 29, "-@", 2),
        ("--shard-size", 1000, "-@", 1),
        ("--reuse-state", "false", "--batch-size", 50),
    ):
        assert_same(wanted, score(variants, *more, model=model))


def test_a_run_that_is_stopped_again_and_again(
    variants: list[tuple[str, Variant]],
    score: Score,
    models: dict[str, Path],
    run_cli: Callable[..., CliResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = score(variants, "--batch-size", 64)
    call, calls = VariantScorer.__call__, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt
        return call(*args)

    monkeypatch.setattr(VariantScorer, "__call__", interrupted)
    reference, out = next(tmp_path.glob("*.fa")), tmp_path / "stopped.parquet"
    words = ("-r", reference, "-i", tmp_path / "1.vcf", "-m", models["causal"], "-o", out, "--distances")
    codes = []
    while not codes or codes[-1] == 130:
        codes.append(run_cli("score", *words, "--shard-size", 50, *(["--resume"] if codes else [])).code)
    assert len(codes) > 2
    assert codes[-1] == 0
    assert_same(wanted, read(out))


@pytest.mark.parametrize("model", ["causal", "masked"])
def test_left_and_right_aligned_indels(
    model: str, variants: list[tuple[str, Variant]], sequence: str, score: Score
) -> None:
    left, right = [], []
    for name, variant in variants:
        if variant.kind in ("INS", "DEL"):
            first = normalise(variant, lambda _, start, end: sequence[start:end])
            last = right_aligned(first, sequence)
            if last != first:
                left.append((name, first))
                right.append((name, last))
    assert len(left) > 10
    assert_same(score(left, model=model), score(right, model=model))


def right_aligned(variant: Variant, sequence: str) -> Variant:
    """The last place where the same change can be written, with the base after it as its anchor."""
    core = variant.trimmed()
    start, moving = core.start, core.ref or core.alt
    while sequence[start + len(core.ref)] == moving[0]:
        moving, start = moving[1:] + moving[0], start + 1
    anchor = sequence[start + len(core.ref)]
    ref, alt = (moving, "") if core.ref else ("", moving)
    return Variant(variant.contig, start, ref + anchor, alt + anchor)


@pytest.mark.parametrize("window", [96, 97])
@pytest.mark.parametrize("model", ["causal", "masked"])
def test_the_reverse_complement(
    model: str, window: int, variants: list[tuple[str, Variant]], sequence: str, score: Score
) -> None:
    """Also of changes that repeats let stand in several places."""
    first = [normalise(v, lambda _, start, end: sequence[start:end]) for _, v in variants if v.kind in ("INS", "DEL")]
    assert sum(right_aligned(v, sequence).trimmed() != v.trimmed() for v in first) > 5
    turned = [(name, reverse(variant.trimmed(), sequence)) for name, variant in variants]
    other = sequence[::-1].translate(PAIRS)
    given = ("--window", window)
    assert_same(score(variants, *given, model=model), score(turned, *given, model=model, genome=other))


def reverse(core: Variant, sequence: str) -> Variant:
    """The same change on the other strand, with an anchor before it where an allele is empty."""
    start = len(sequence) - core.end
    ref, alt = core.ref[::-1].translate(PAIRS), core.alt[::-1].translate(PAIRS)
    if ref and alt:
        return Variant(core.contig, start, ref, alt)
    anchor = sequence[core.end].translate(PAIRS)
    return Variant(core.contig, start - 1, anchor + ref, anchor + alt)


@pytest.mark.parametrize("model", ["causal", "masked"])
def test_ambiguity_codes_in_the_context(
    model: str, variants: list[tuple[str, Variant]], sequence: str, score: Score
) -> None:
    taken = np.zeros(len(sequence), bool)
    for _, variant in variants:
        taken[variant.start - 2 : variant.end + 2] = True
    places = [p for _, v in variants for p in (v.start - 4, v.end + 3) if not taken[p]]
    found = []
    for letter in "RN":
        letters = np.array(list(sequence))
        letters[places] = letter
        found.append(score(variants, genome="".join(letters), model=model))
    assert found[0] == found[1]
    plain = score(variants, model=model)
    assert sum(abs(plain[name][0] - found[0][name][0]) > 1e-3 for name in plain) > len(variants) / 4
