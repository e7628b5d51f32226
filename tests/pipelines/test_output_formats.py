"""What a name that ends in .gz gets is what the plain one gets, by bgzip."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from world import REGIONS, RunCli, World

BGZIP = bytes.fromhex("1f8b0804")  # a gzip member with an extra field, which holds the block's size
COMMANDS = {
    "attribute": ("-r {reference} -m {model} --region chrA:1-9 --window 16 -o {out}", "tsv"),
    "evaluate regions": ("-r {reference} -m {model} -b {bed} --edge pad -o {out}", "tsv"),
    "evaluate sequences": ("-i {folder}/table.csv -m {folder}/model --leaks drop --predictions {out}", "tsv"),
    "generate": ("-m {model} -n 2 -l 90 -o {out}", "fa"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_ends_in_gz_is_compressed(
    world: World, trained: Path, run_cli: RunCli, tmp_path: Path, command: str
) -> None:
    words, extension = COMMANDS[command]
    bed = tmp_path / "r.bed"
    bed.write_text(REGIONS)
    outputs = [tmp_path / f"plain.{extension}", tmp_path / f"packed.{extension.upper()}.gz"]
    for out in outputs:
        given = words.format(reference=world.reference, model=world.pretrained, bed=bed, folder=trained, out=out)
        result = run_cli(*command.split(), *given.split(), "--device", "cpu")
        assert result.code == 0, result.err
    plain, packed = (out.read_bytes() for out in outputs)
    assert packed.startswith(BGZIP)
    assert gzip.decompress(packed) == plain
    assert len(plain.splitlines()) > 2
