"""Puts a run of `genomamba pretrain` in the place of the model that ships.

    python -m genomamba.model.pretrained.ship runs/small --name genomamba-small-v1 --command "genomamba pretrain ..."

What tells of the machine that trained it, the folders of its files, is left out; everything else of the run folder's
model stays as it is. The model that shipped before is removed when the new one is whole; what a kill leaves of it goes
the next time.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from genomamba.errors import CheckpointError
from genomamba.files import whole_file
from genomamba.model.backbone import CausalLM
from genomamba.model.folder import CARD, CONFIG, PROVENANCE, WEIGHTS, load_model, weights_fingerprint
from genomamba.model.pretrained import version_of

MOST_BYTES = 6_000_000
REGIONS = ("training.bed", "valid.bed")
PATHS = ("output", "regions", "valid_bed", "test_bed")  # options of `pretrain`, besides the genomes and --init
NAME = re.compile(r"[a-z0-9-]+-v\d+")
PLACE = ".ship."  # begins the name of the folder in which a model is put together


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
        CheckpointError: the run is no causal model, or too large; or the name has no version, or one that is not new.
    """
    if NAME.fullmatch(name) is None:
        raise CheckpointError("it does not end with a version", "write it like genomamba-small-v1", field=name)
    version, before = version_of(Path(name)), [path for path in target.iterdir() if NAME.fullmatch(path.name)]
    newest = max(before, key=version_of, default=None)
    if newest is not None and version <= version_of(newest):  # of two, the newer is taken for the one that ships
        raise CheckpointError(f"{newest.name} ships already", "take a new version", field=name)
    if not isinstance(load_model(run), CausalLM):
        raise CheckpointError("it is no causal language model", "give a run folder of `pretrain`", file=run)
    if (size := (run / WEIGHTS).stat().st_size) > MOST_BYTES:
        raise CheckpointError(f"{size:,} bytes are more than {MOST_BYTES:,}", "train a smaller one", file=run / WEIGHTS)
    made = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
    genomes, init = made["configuration"]["reference"], made["configuration"]["init"]
    card = (run / CARD).read_text(encoding="utf-8").replace(made["reference"]["path"], ", ".join(map(_file, genomes)))
    if init is not None:
        card = card.replace(f"from the weights of `{init}`", f"from the weights of `{_origin(made)}`")
    shipped = {"name": name, "version": version, "sha256": weights_fingerprint(run), "command": command}
    made = {"shipped": shipped, **_without_folders(made)}
    for left in target.glob(f"{PLACE}*"):  # by one that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PLACE, dir=target) as place:
        folder = Path(place) / name  # too deep to be taken for the model that ships
        folder.mkdir()
        for kept in (WEIGHTS, *REGIONS, CONFIG):
            shutil.copyfile(run / kept, folder / kept)
        for written, text in ((CARD, card), (PROVENANCE, json.dumps(made, indent=2) + "\n")):
            with whole_file(folder / written) as path:
                path.write_text(text, encoding="utf-8")
        folder = folder.rename(target / name)
    for old in before:
        shutil.rmtree(old)
    return folder


def _without_folders(made: dict[str, Any]) -> dict[str, Any]:
    configuration = dict(made["configuration"])
    configuration["reference"] = [_file(path) for path in configuration["reference"]]
    for option in PATHS:
        if configuration[option] is not None:
            configuration[option] = _file(configuration[option])
    reference = {**made["reference"], "path": _file(made["reference"]["path"])}
    without = {**made, "configuration": configuration, "reference": reference}
    if configuration["init"] is not None:
        configuration["init"] = _origin(made)
        without["started_from"] = {**made["started_from"], "path": _origin(made)}
    return without


def _origin(made: dict[str, Any]) -> str:
    """The name of the model that a run started from; one on the hub, which is no path of a machine, in full."""
    path = made["started_from"]["path"]
    return _file(path) if Path(path).is_absolute() else path


def _file(path: str) -> str:
    return Path(path).name


if __name__ == "__main__":
    main()
