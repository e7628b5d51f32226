"""What a classifier's run folder, and that of the model that it came from, can still tell a report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from genomamba.errors import UserError
from genomamba.model.folder import PROVENANCE, weights_fingerprint
from genomamba.model.folder_files import WEIGHTS
from genomamba.pipelines.model_provenance import read_provenance
from genomamba.pipelines.run_folder import METRICS

Rows = list[dict[str, str]]  # of metrics.csv


class Curve(NamedTuple):
    """What there is to draw of a training."""

    rows: Rows | None
    missing: str = ""  # why there is nothing


class Pretraining(NamedTuple):
    """Of the model that a classifier came from."""

    facts: dict[str, Any] | None  # its provenance
    missing: str  # why there is none
    curve: Curve


def read_evaluation(path: Path) -> dict[str, Any]:
    """The JSON of `evaluate`; raises UserError where it cannot be read, or holds no object."""
    remedy = "give the file that the command wrote"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"it cannot be read ({error})", remedy, file=path) from error
    if not isinstance(found, dict):
        raise UserError("it is not what `genomamba evaluate` writes", remedy, file=path)
    return found


def finetuning_curve(folder: Path, provenance: dict[str, Any]) -> Curve:
    """Of the classifier in ``folder``."""
    if provenance["method"] == "probe":
        return Curve(None, "a probe is not trained in steps")
    return _curve(folder)


def pretraining(provenance: dict[str, Any]) -> Pretraining:
    """As far as it was one, and its folder still lies where it was.

    Args:
        provenance: of the classifier.

    Raises:
        UserError: what lies there cannot be read.
    """
    source = provenance["pretrained"]
    if source is None:
        return _without("the model was trained from scratch: there was no pretraining")
    folder = Path(source["path"])
    if not (folder / PROVENANCE).is_file() or not (folder / WEIGHTS).is_file():
        return _without(f"the pretrained model is no longer at {folder}")
    if weights_fingerprint(folder) != source["weights"]:
        return _without(f"there is another model at {folder} now")
    facts = read_provenance(str(folder))
    if "imported_from" in facts:
        return _without(f"the pretrained model was imported from {facts['imported_from']}, not trained here")
    return Pretraining(facts, "", _curve(folder))


def _without(missing: str) -> Pretraining:
    return Pretraining(None, missing, Curve(None, missing))


def _curve(folder: Path) -> Curve:
    path = folder / METRICS
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return Curve(list(csv.DictReader(stream)))
    except FileNotFoundError:
        return Curve(None, f"{folder.name} came without its {METRICS}")
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is no table"
        raise UserError(f"it cannot be read ({why})", "keep the run folder whole", file=path) from error
