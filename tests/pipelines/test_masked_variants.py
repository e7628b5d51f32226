"""A masked model of both strands as the start of a variant classifier: trained, measured, and put to use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import RunCli, World

from genomamba.data.vcf import VcfReader, info_value

MASKED = (
    "--objective masked --model.bidirectional true --model.d_model 16 --model.n_layer 1 --model.d_state 4 "
    "--window 64 --batch-size 4 --steps 4 --validate-every 4 --model.rc_equivariant"
)


@pytest.mark.parametrize(("equivariant", "method"), [("true", "full"), ("false", "probe")])
def test_from_pretraining_to_scores(
    equivariant: str, method: str, world: World, run_cli: RunCli, tmp_path: Path
) -> None:
    def run(*words: object) -> str:
        result = run_cli(*words)
        assert result.code == 0, result.err
        return result.err

    common = ("-r", world.reference, "-i", world.labelled)
    run("pretrain", "-r", world.reference, "-o", tmp_path / "masked", *MASKED.split(), equivariant)
    splits = "--train AAA1 BBB2 --valid CCC3 --test DDD4 --window 64 --batch-size 8 --epochs 2".split()
    given = (*common, "-m", tmp_path / "masked", "-o", tmp_path / "classifier", "--method", method)
    run("finetune", "variants", *given, *splits)
    run("evaluate", "variants", *common, "-m", tmp_path / "classifier", "-o", tmp_path / "e.json")
    auroc = json.loads((tmp_path / "e.json").read_text())["overall"]["AUROC"][0]
    assert auroc > 0.8  # one class inserts TATA
    run("score", *common, "-m", tmp_path / "classifier", "-o", tmp_path / "scored.vcf", "--distances")
    with VcfReader(tmp_path / "scored.vcf") as reader:
        found = [
            (info_value(record.info, "CLNSIG"), float(info_value(record.info, "GM_PROB") or "nan")) for record in reader
        ]
    pathogenic = [probability for label, probability in found if label == "Pathogenic"]
    benign = [probability for label, probability in found if label == "Benign"]
    assert sum(pathogenic) / len(pathogenic) > sum(benign) / len(benign) + 0.2
