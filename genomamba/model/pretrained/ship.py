"""Puts a run of `genomamba pretrain` in the place of the model that ships.

    python -m genomamba.model.pretrained.ship runs/small --name genomamba-small-v1 --command "genomamba pretrain ..."

What tells of the machine that trained it, the folders of its files, is left out; everything else of the run folder's
model stays as it is. The model that shipped before is removed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.model.backbone import CausalLM
from genomamba.model.folder import CARD, CONFIG, PROVENANCE, WEIGHTS, load_model, weights_fingerprint

MOST_BYTES = 6_000_000
REGIONS = ("training.bed", "valid.bed")
NAME = re.compile(r"[a-z0-9-]+-v(\d+)")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of `genomamba pretrain`")
    parser.add_argument("--name", required=True, help="such as genomamba-small-v1, with a version that is new")
    parser.add_argument("--command", required=True, help="what made the run, as it was typed")
    options = parser.parse_args()
    print(ship(options.run, options.name, options.command, Path(__file__).parent))


def ship(run: Path, name: str, command: str, target: Path) -> Path:
    """Makes ``target/name`` of the run; returns it.

    Raises:
        CheckpointError: the run is no causal model, or too large; or the name has no version.
    """
    version = NAME.fullmatch(name)
    if version is None:
        raise CheckpointError("it does not end with a version", "write it like genomamba-small-v1", field=name)
    if not isinstance(load_model(run), CausalLM):
        raise CheckpointError("it is no causal language model", "give a run folder of `pretrain`", file=run)
    if (size := (run / WEIGHTS).stat().st_size) > MOST_BYTES:
        raise CheckpointError(f"{size:,} bytes are more than {MOST_BYTES:,}", "train a smaller one", file=run / WEIGHTS)
    made = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
    genomes = made["configuration"]["reference"]
    card = (run / CARD).read_text(encoding="utf-8").replace(made["reference"]["path"], ", ".join(map(_file, genomes)))
    shipped = {"name": name, "version": int(version[1]), "sha256": weights_fingerprint(run), "command": command}
    made = {"shipped": shipped, **_without_folders(made)}
    for before in target.glob(f"*/{CONFIG}"):
        shutil.rmtree(before.parent)
    folder = target / name
    folder.mkdir()
    for kept in (WEIGHTS, *REGIONS, CONFIG):
        shutil.copyfile(run / kept, folder / kept)
    for written, text in ((CARD, card), (PROVENANCE, json.dumps(made, indent=2) + "\n")):
        with whole_file(folder / written) as path:
            path.write_text(text, encoding="utf-8")
    return folder


def _without_folders(made: dict[str, Any]) -> dict[str, Any]:
    configuration = {**made["configuration"], "output": _file(made["configuration"]["output"])}
    configuration["reference"] = [_file(path) for path in configuration["reference"]]
    reference = {**made["reference"], "path": _file(made["reference"]["path"])}
    return {**made, "configuration": configuration, "reference": reference}


def _file(path: str) -> str:
    return Path(path).name


if __name__ == "__main__":
    main()
