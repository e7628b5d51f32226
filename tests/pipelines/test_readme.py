"""What the README shows works: its commands and its Python, in order, where the files that they name are small ones."""

from __future__ import annotations

import gzip
import itertools
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pysam
import pytest
from world import RunCli, labelled_records, write_reference, write_vcf

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
    "score": "--window 64",
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of that language; of none where it is empty."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each ``genomamba …`` of the blocks without a language, continued lines joined.

    A cluster of several machines is not here; `test_score_ray` runs what the README shows of it on a local one.
    """
    lines = [line for block in blocks("") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"genomamba [a-z]+ ", line) and "--ray-address" not in line]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with everything that the README's commands read."""
    random = np.random.default_rng(0)
    contigs = {name: "".join(random.choice(list("ACGT"), 9_000)) for name in ("chrII", "chrIV")}
    plain = write_reference(tmp_path / "genome.fa", contigs)
    pysam.tabix_compress(str(plain), str(tmp_path / "genome.fa.gz"))
    renamed = {"chrA": contigs["chrII"], "chrB": contigs["chrIV"]}
    records = [line.replace("chrA\t", "chrII\t").replace("chrB\t", "chrIV\t") for line in labelled_records(renamed)]
    for old, new in GENES.items():
        records = [line.replace(old, new) for line in records]
    labelled = write_vcf(tmp_path / "clinvar.vcf", records, dict.fromkeys(contigs, 9000))
    for name in ("clinvar.vcf.gz", "variants.vcf.gz"):
        pysam.tabix_compress(str(labelled), str(tmp_path / name))
    with (
        pysam.VariantFile(str(labelled)) as source,
        pysam.VariantFile(str(tmp_path / "variants.bcf"), "wb", header=source.header) as copy,
    ):
        for record in source:
            copy.write(record)
    for name in ("heldout.bed", "regions.bed", "candidates.bed"):
        (tmp_path / name).write_text("chrIV\t0\t400\theld\nchrII\t100\t300\tseen\n")
    rows = [
        f"{contigs['chrII'][40 * n : 40 * n + 40]},{n % 2},{'train train dev test'.split()[n // 2 % 4]}\n"
        for n in range(48)
    ]
    (tmp_path / "enhancers.csv.gz").write_bytes(gzip.compress(("sequence,label,split\n" + "".join(rows)).encode()))
    golden = ROOT / "tests" / "golden"
    (tmp_path / "path" / "to" / "caduceus-ps").mkdir(parents=True)
    shutil.copy(golden / "caduceus_ps.safetensors", tmp_path / "path/to/caduceus-ps/model.safetensors")
    shutil.copy(golden / "mamba2.safetensors", tmp_path / "weights.safetensors")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_something_to_run() -> None:
    assert len(commands()) > 15
    assert len(blocks("python")) > 2


def test_what_the_readme_shows_runs(files: Path, run_cli: RunCli) -> None:
    for line in commands():
        words = [SMALLER.get(word, word) for word in shlex.split(line, comments=True)[1:]]
        given = " ".join(words[:2])
        quick = QUICK.get(given, QUICK.get(words[0], ""))
        result = run_cli(*words, *quick.split())
        assert result.code == 0, f"{line}\n{result.err}"
        for flag, name in itertools.pairwise(words):
            if flag in ("-o", "--logo", "--heatmap", "--summary"):
                assert (files / name).exists(), line
    scope: dict[str, object] = {}
    for block in blocks("python"):
        exec(block.replace("prompt, 1000,", "prompt, 200,"), scope)
    assert len(scope["logits"]) == 2  # type: ignore[arg-type]
